"""Enrolment, and all roles of one side by one command."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from facerelay import settings
from facerelay.commands.entry import json_option, settings_options
from facerelay.config import Config

_SAVE = "The bundle's file."
_WRITTEN = "One JSON object: files, authority, and the commands that come next."


def _with_cloud(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the cloud's settings: those of `cloud.toml` here, if no other file is named."""

    @functools.wraps(command)
    def loaded(config: Path | None, flags: tuple[str, ...], **rest: Any) -> None:  # noqa: ANN401 - click's options
        here = Path("cloud.toml")
        if config is None and not here.exists():
            hint = "name it with -c, or begin with `facerelay enrol cloud HOST`"
            raise settings.ConfigError(f"no {here} in this folder: {hint}")
        command(settings.load(config or here, flags=flags), **rest)

    return settings_options(loaded)


def _folder(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    path = click.Path(path_type=Path)
    return click.option("--dir", "folder", type=path, default=".", show_default=True, help=what)


@click.group()
def enrol() -> None:
    """Enrol the cloud and its sites: certificates, access lists, and settings that fit."""


@enrol.command("cloud")
@click.argument("hosts", metavar="HOST...", nargs=-1, required=True)
@click.option(
    "--site",
    "sites",
    multiple=True,
    metavar="SITE",
    help="A site to enrol at once; more than one if so said.",
)
@click.option(
    "--broker",
    type=click.Choice(["embedded", "mosquitto"]),
    default="embedded",
    show_default=True,
    help="Which broker the sites come to.",
)
@click.option("--bucket", default="file://bucket", show_default=True, help="Where faces are stored.")
@click.option("--name", "store", default="main", show_default=True, help="The store's name.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=8883, show_default=True, help="The broker's port."
)
@_folder("Where to write.")
@json_option(_WRITTEN)
def enrol_cloud(*, sites: tuple[str, ...], broker: str, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Make the site authority, the cloud's certificates, and cloud.toml.

    HOST is the name or address under which sites reach this machine; the broker's certificate is for it.
    """
    from facerelay.commands import enrol as work  # noqa: PLC0415 - a command loads what it needs
    from facerelay.commands.roster import fingerprint  # noqa: PLC0415 - as above
    from facerelay.fleet import names  # noqa: PLC0415 - as above

    sites = tuple(dict.fromkeys(sites))
    owners = [names.owner("site", site) for site in sites]  # before anything is written
    wanted = work.Cloud(mosquitto=broker == "mosquitto", **options)
    bundles = [wanted.folder / work.bundle_name(owner) for owner in owners]
    work.absent(*bundles)
    path = work.cloud(wanted)
    config = settings.load(path, environ={})
    for site, bundle in zip(sites, bundles, strict=True):
        work.edge(config, site, bundle)
    following = [f"facerelay run -c {path}"]
    if not sites:
        following.append(f"facerelay enrol edge SITE -c {path}")
    made = [path, path.parent / "trust", *bundles]
    says = (
        f"Written: {', '.join(map(str, made))}. Whoever has trust/authority.key makes machines: keep it well."
    )
    _tell(says, [path, *bundles], following, authority=fingerprint(config), as_json=as_json)


@enrol.command("edge")
@click.argument("site")
@click.option(
    "--request", type=click.Path(path_type=Path), help="Of `facerelay enrol request`: the key stays there."
)
@click.option("--direct", is_flag=True, help="Without a broker of its own: straight to the cloud's.")
@click.option("--out", type=click.Path(path_type=Path), help=_SAVE + " [default: SITE.tar]")
@_with_cloud
@json_option(_WRITTEN)
def enrol_edge(known: Config, site: str, out: Path | None, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Enrol a site: write SITE.tar, to be carried to its device."""
    from facerelay.commands import enrol as work  # noqa: PLC0415 - a command loads what it needs

    path = work.edge(known, site, out or Path(f"{site}.tar"), **options)
    _tell_bundle(known, path, keyed=options["request"] is None, as_json=as_json)


@enrol.command("store")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help=_SAVE + " [default: store.NAME.tar]")
@_with_cloud
@json_option(_WRITTEN)
def enrol_store(known: Config, name: str, out: Path | None, *, as_json: bool) -> None:
    """Enrol one more store: write store.NAME.tar, to be carried to its machine."""
    from facerelay.commands import enrol as work  # noqa: PLC0415 - a command loads what it needs

    path = work.store(known, name, out or Path(f"store.{name}.tar"))
    _tell_bundle(known, path, keyed=True, as_json=as_json, config="cloud.toml")


@enrol.command("renew")
@click.argument("name")
@click.option("--request", type=click.Path(path_type=Path), help="Of `facerelay enrol request --renew`.")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="Of a broker, in place of those before.")
@click.option("--out", type=click.Path(path_type=Path), help=_SAVE + " [default: NAME.tar]")
@_with_cloud
@json_option(_WRITTEN)
def enrol_renew(known: Config, name: str, out: Path | None, *, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's options
    """Give a machine a new key; the one before works until it ends or is revoked.

    NAME is a site, or store.NAME, gallery.NAME, broker.NAME: see `facerelay enrol list`.
    """
    from facerelay.commands import enrol as work  # noqa: PLC0415 - a command loads what it needs
    from facerelay.commands.roster import fingerprint  # noqa: PLC0415 - as above

    path = work.renew(known, name, out, **options)
    if path.suffix == ".tar":
        _tell_bundle(known, path, keyed=options["request"] is None, as_json=as_json, renew=True)
    else:
        says = f"{path} and its key written. They count when the roles start again."
        _tell(says, [path], [], authority=fingerprint(known), as_json=as_json)


@enrol.command("revoke")
@click.argument("name")
@click.option("--key", help="One key alone, where a machine has several: the first digits of its id.")
@_with_cloud
@json_option("One JSON object: name, keys.")
def enrol_revoke(known: Config, name: str, key: str | None, *, as_json: bool) -> None:
    """Take a machine's certificates back: a site, or store.NAME, gallery.NAME."""
    from facerelay.commands import enrol as work  # noqa: PLC0415 - a command loads what it needs

    gone = [one.key.id for one in work.revoke(known, name, key=key)]
    if as_json:
        click.echo(json.dumps({"name": name, "keys": gone}))
    else:
        click.echo(
            f"{f'A key of {name}' if key else name} is revoked ({', '.join(gone)})."
            " A broker under `facerelay run` knows it within seconds."
        )


@enrol.command("list")
@_with_cloud
@json_option("One JSON object a line: name, key, until, state.")
def enrol_list(known: Config, *, as_json: bool) -> None:
    """Show who is enrolled, until when, and who was revoked."""
    from facerelay.commands.roster import listed  # noqa: PLC0415 - a command loads what it needs

    rows = listed(known)
    if as_json:
        click.echo("\n".join(json.dumps(row) for row in rows))
        return
    shown = [("name", "key", "until", "state")]
    shown += [(row["name"], row["key"], row["until"], row["state"]) for row in rows]
    wide = [max(len(line[at]) for line in shown) for at in range(len(shown[0]))]
    for line in shown:
        click.echo("  ".join(word.ljust(width) for word, width in zip(line, wide, strict=True)).rstrip())


@enrol.command("request")
@click.argument("site")
@click.option("--renew", is_flag=True, help="A new key beside the one that is in use.")
@_folder("Where the site's files are.")
@json_option("One JSON object: files, and the commands that come next.")
def enrol_request(site: str, folder: Path, *, renew: bool, as_json: bool) -> None:
    """On the device: make a key that never leaves it, and SITE.csr to be carried to the cloud."""
    from facerelay.fleet import ask, names  # noqa: PLC0415 - a command loads what it needs

    key, request = folder / "trust" / ("site.key.new" if renew else "site.key"), folder / f"{site}.csr"
    ask(names.owner("site", site), key=key, request=request)
    word = "renew" if renew else "edge"
    says = f"{key} and {request} written. Carry {request.name} to the cloud; there:"
    _tell(says, [key, request], [f"facerelay enrol {word} {site} --request {request.name}"], as_json=as_json)


@enrol.command("join")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--renew", is_flag=True, help="Put the new certificate and key in the place of the old ones.")
@_folder("Where to unpack.")
@json_option(_WRITTEN)
def enrol_join(bundle: Path, folder: Path, *, renew: bool, as_json: bool) -> None:
    """On the device: unpack its bundle, keys readable by this user alone."""
    from facerelay.commands.roster import fingerprint  # noqa: PLC0415 - a command loads what it needs
    from facerelay.fleet import join, read_bundle  # noqa: PLC0415 - as above

    found = read_bundle(bundle)
    owner = join(found, folder, renew=renew)
    path = folder / found.config
    says = (
        f"This is {owner} now; {path} written."
        if not renew
        else f"{owner} has a new key. Start its roles again."
    )
    says += f" {bundle} holds its key: delete it." if found.key else ""
    following = [] if renew else [f"facerelay run -c {path}", f"facerelay doctor -c {path}"]
    authority = fingerprint(settings.load(path, environ={}))
    _tell(says, [path], following, authority=authority, as_json=as_json)


@click.command()
@settings_options
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(["broker", "forward", "capture", "store", "gallery"]),
    help="A role that runs elsewhere, or not at all.",
)
@click.pass_context
def run(context: click.Context, config: Path | None, flags: tuple[str, ...], without: Sequence[str]) -> None:
    """Run all roles that a file calls for, the broker included, and start again what falls.

    Of an edge: broker, forward, capture. Of a cloud: broker, store, gallery.
    """
    from facerelay.commands.run import run as work  # noqa: PLC0415 - a command loads what it needs

    known = settings.load(config, flags=flags)
    words = [*(["-c", str(config)] if config else []), *(word for flag in flags for word in ("--set", flag))]
    verbose = bool(context.find_root().params.get("verbose"))
    sys.exit(work(known, words, without=without, verbose=verbose))


def _tell_bundle(
    known: Config,
    path: Path,
    *,
    keyed: bool,
    as_json: bool,
    renew: bool = False,
    config: str = "edge.toml",
) -> None:
    from facerelay.commands.roster import fingerprint  # noqa: PLC0415 - a command loads what it needs

    secret = (
        "It holds a key: carry it as you would a password"
        if keyed
        else "It holds no key: carry it as you like"
    )
    join = f"facerelay enrol join{' --renew' if renew else ''} {path.name}"
    following = [join] if renew else [join, f"facerelay run -c {config}"]
    _tell(
        f"{path} written. {secret}; there:", [path], following, authority=fingerprint(known), as_json=as_json
    )


def _tell(
    says: str, files: Sequence[Path], following: Sequence[str], *, authority: str | None = None, as_json: bool
) -> None:
    if as_json:
        said: dict[str, Any] = {"files": [str(each) for each in files], "next": list(following)}
        click.echo(json.dumps(said | ({"authority": authority} if authority else {})))
        return
    click.echo(says)
    for each in following:
        click.echo(f"  {each}")
    if authority:
        click.echo(f"The authority's fingerprint, the same on every machine: {authority}")
