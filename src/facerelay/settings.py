"""Read a configuration: file, environment, flags; and say of a mistake where it is and what to do."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from facerelay.config import Config

PREFIX: Final = "FACERELAY_"
_NOT_SETTINGS: Final = {"FACERELAY_MEDIA", "FACERELAY_CONFIG", "FACERELAY_ALIVE", "FACERELAY_LOG"}
_MAX_CONFIG_BYTES: Final = 1_000_000
_MOST_FAULTS: Final = 20
_QUOTED: Final = re.compile(rb"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_DEEP: Final = re.compile(rb"(?<![\w-])(?:[\w-]++[ \t]*\.[ \t]*){20}")
"""A key of so many parts: what reads TOML takes memory by the square of their number."""

EDGE: Final = (
    "site", "delivery", "qos", "direct", "broker", "cloud", "trust", "seal", "topics", "limits",
    "camera", "detect", "visits", "picture", "preview", "outbox", "uplink", "forward",
    "homeassistant", "frigate", "metrics", "trace",
)  # fmt: skip
CLOUD: Final = (
    "delivery", "qos", "broker", "cluster", "trust", "seal", "topics", "limits", "bucket", "store",
    "jetstream", "webhook", "gallery", "metrics", "trace",
)  # fmt: skip


class ConfigError(ValueError):
    """A setting is wrong; the message names it, its line of help, and the nearest right name."""


def load(path: Path | None, *, flags: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Config:
    """Read the settings of this machine.

    Args:
        path: the TOML file; None for defaults, environment and flags alone.
        flags: `section.key=value` each.
        environ: the environment; the process's own if not given.

    Raises:
        ConfigError: a file that cannot be read, a wrong key or value.
    """
    values = _read(path) if path else {}
    for name, value in sorted((os.environ if environ is None else environ).items(), key=_in_order):
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            _put(values, name.removeprefix(PREFIX).lower().split("__"), value, name)
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals:
            raise ConfigError(f"--set {flag}: write it as section.key=value")
        _put(values, name.split("."), value, f"--set {name}")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        where = str(path) if path else "the settings"
        faults = error.errors()
        lines = [f"{where}: {_explain(fault)}" for fault in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            lines.append(f"{where}: and {len(faults) - _MOST_FAULTS} faults more")
        raise ConfigError("\n".join(lines)) from None
    return _beside(config, path.parent) if path else config


def _in_order(variable: tuple[str, str]) -> list[str]:
    """Sort a variable by its name, numbers by their value: an environment has no order, cameras have one."""
    return [step.zfill(9) for step in variable[0].split("__")]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        hint = "write one with `facerelay enrol` (two machines) or `facerelay init` (one)"
        raise ConfigError(f"{path}: {error.strerror}; {hint}") from None
    if len(text) > _MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_CONFIG_BYTES} bytes: is it the right file?")
    if _DEEP.search(_QUOTED.sub(b"x", text)):
        raise ConfigError(f"{path}: a key of more than 20 parts: is it the right file?")
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:  # a ValueError is that of a number of very many digits, too
        raise ConfigError(f"{path}: not TOML: {str(error)[:200]}") from None


def _put(values: dict[str, Any], path: Sequence[str], value: str, origin: str) -> None:
    """Set one value deep in the settings; a number in the path is a place in a list."""
    here: Any = values
    for step, following in zip(path, [*path[1:], None], strict=True):
        place: Any = int(step[:9]) if isinstance(here, list) and step.isdecimal() else step
        if isinstance(here, list):
            if not isinstance(place, int) or place > len(here):
                raise ConfigError(f"{origin}: {step!r} is no place in a list: count from 0")
            if place == len(here):
                here.append({})
        elif not isinstance(here, dict):
            raise ConfigError(f"{origin}: {path[0]} has no settings inside")
        if following is None:
            here[place] = value
        elif isinstance(here, dict):
            here = here.setdefault(place, [] if following.isdecimal() else {})
        else:
            here = here[place]


def _explain(fault: ErrorDetails) -> str:
    """One fault: the key, what is wrong with it, its line of help, the nearest right name."""
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        known = list(_fields(location[:-1]))
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known there: {', '.join(known)}"
        return f"{key}: there is no such setting; {hint}"
    field = _fields(location[:-1]).get(location[-1]) if location else None
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in {"tuple_type", "list_type"}:
        message = f'a list, such as ["…"] in the file; as a flag --set {key}.0=…'
    said = f"{key}: {message}" if key else message
    return said + (f" ({field.title}: {field.description})" if field else "")


def _fields(location: Sequence[str]) -> Mapping[str, FieldInfo]:
    """The settings of the section at a location; empty where there is none."""
    fields: Mapping[str, FieldInfo] = Config.model_fields
    for step in location:
        if not step.isdecimal():
            section = section_of(fields[step]) if step in fields else None
            fields = section.model_fields if section else {}
    return fields


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a section, or of the entries of a list of sections; None for a plain setting."""
    for kind in (field.annotation, *typing.get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _beside(config: Config, folder: Path) -> Config:
    """Make the paths in a file relative to the file, not to where the command is started."""
    changes: dict[str, Any] = {}
    for name in Config.model_fields:
        section = getattr(config, name)
        if isinstance(section, BaseModel):
            moved = {
                key: folder / value
                for key in type(section).model_fields
                if isinstance(value := getattr(section, key), Path)
            }
            if isinstance(url := getattr(section, "url", None), str) and url.startswith("file://"):
                rest = url.removeprefix("file://")
                moved["url"] = url if rest.startswith("/") else f"file://{(folder / rest).absolute()}"  # type: ignore[assignment]
            changes[name] = section.model_copy(update=moved)
    changes["camera"] = tuple(
        camera.model_copy(update={"source": str(folder.absolute() / Path(camera.source).expanduser())})
        if is_path(camera.source)
        else camera
        for camera in config.camera
    )
    values = {name: getattr(config, name) for name in Config.model_fields} | changes
    return Config.model_construct(_fields_set=config.model_fields_set, **values)


def is_path(source: str) -> bool:
    """Whether a camera's source is a file or folder: no webcam, no URL, no topic, not the built-in scene."""
    return not (source.isdecimal() or "://" in source or source.startswith("mqtt:") or source == "scene")


def template(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """Write a commented configuration: `values` are set, everything else stands as a comment."""
    plain = [name for name in names if section_of(Config.model_fields[name]) is None]
    sections = [name for name in names if name not in plain]
    lines = ["# facerelay: the lines behind `#` are the defaults.", ""]
    for name in plain:
        lines += _setting(name, Config.model_fields[name], values.get(name))
    for name in sections:
        lines += ["", *_section(name, Config.model_fields[name], values.get(name))]
    return "\n".join(lines) + "\n"


def _section(name: str, field: FieldInfo, given: Any) -> Iterator[str]:  # noqa: ANN401 - a section or a list of them
    model = section_of(field)
    assert model is not None  # noqa: S101 - by the caller's choice
    yield f"# {field.title}: {field.description}"
    many = typing.get_origin(field.annotation) is tuple
    head = f"[[{name}]]" if many else f"[{name}]"
    optional = many or field.default is None
    for entry in given if isinstance(given, list) else [given]:
        yield f"# {head}" if optional and entry is None else head
        for key, inner in model.model_fields.items():
            yield from _setting(key, inner, (entry or {}).get(key))


def _setting(name: str, field: FieldInfo, given: Any) -> list[str]:  # noqa: ANN401 - any TOML value
    """A line of help, then the value; a comment where it is the default."""
    about = f"# {field.title}: {field.description}"
    if given is not None:
        return [about, f"{name} = {_toml(given)}"]
    default = None if field.is_required() else field.default
    return [about, f"# {name} = {_toml(default)}" if default is not None else f"# {name} ="]


def _toml(value: Any) -> str:  # noqa: ANN401 - any TOML value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
