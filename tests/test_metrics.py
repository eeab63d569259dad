from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain_families

import servers
from chains import HERE, Part, chain, eventually
from conftest import Make, need
from facerelay import settings
from facerelay.cloud.counters import Counters
from facerelay.cloud.measures import Measures
from facerelay.commands.running import connector
from facerelay.config import Config
from facerelay.edge.capture import open_outbox
from facerelay.edge.relaying import relaying
from facerelay.messages import Account, Ledger, LinkHealth
from facerelay.metrics import Meters, Reading, Spread, books, catalogue, serve, text
from facerelay.metrics.lately import Lately
from servers import answers, free_port

DEPLOY = HERE.parent / "deploy"
RULES = DEPLOY / "prometheus" / "facerelay.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "facerelay.json"
NAME = re.compile(r"\b(?:facerelay|process)_[a-z0-9_]+")
BY_NAME = {metric.name: metric for metric in catalogue.CATALOGUE}


def base(name: str) -> str:
    """Return a metric's name by that of one of its series."""
    stem = re.sub(r"_(bucket|sum|count)$", "", name)
    return stem if BY_NAME.get(stem) and BY_NAME[stem].kind == "histogram" else name


def promtool(
    *words: str, stdin: bytes = b"", where: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [need("promtool"), *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, cwd=where)


def some_readings() -> list[Reading]:
    """One reading of each metric."""
    found = []
    for number, metric in enumerate(catalogue.CATALOGUE):
        value: float | Spread = number / 2
        if metric.kind == "histogram":
            value = Spread((0.5, 1.0))
            value.observe(0.25)
            value.observe(7)
        found.append(Reading(metric, tuple(f'a"\\{label}\nb' for label in metric.labels), value))
    return found


# the list


def test_names_follow_the_conventions() -> None:
    names = [metric.name for metric in catalogue.CATALOGUE]
    assert len(set(names)) == len(names)
    for metric in catalogue.CATALOGUE:
        assert metric.name.startswith(("facerelay_", "process_"))
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert metric.help.endswith(".")
        assert set(metric.roles) <= set(catalogue.ALL)
        assert set(metric.labels) <= {
            "site", "camera", "reason", "severity", "kind", "broker", "connection", "direction", "outcome",
            "code", "version", "role",
        }  # fmt: skip


def test_promtool_has_nothing_to_say_of_the_metrics() -> None:
    found = promtool("check", "metrics", stdin=text.expose(some_readings(), text.PROMETHEUS))
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


@pytest.mark.parametrize("form", [text.PROMETHEUS, text.OPENMETRICS])
def test_a_strangers_parser_reads_what_was_meant(form: str) -> None:
    readings = some_readings()
    parse = plain_families if form == text.PROMETHEUS else openmetrics.text_string_to_metric_families
    families = list(parse(text.expose(readings, form).decode()))
    samples = {
        (
            sample.name,
            tuple(v for k, v in sample.labels.items() if k != "le"),
            sample.labels.get("le"),
        ): sample.value
        for family in families
        for sample in family.samples
    }
    for metric, labels, value in readings:
        if isinstance(value, Spread):
            assert samples[f"{metric.name}_count", labels, None] == 2
            assert samples[f"{metric.name}_sum", labels, None] == 7.25
            assert [samples[f"{metric.name}_bucket", labels, le] for le in ("0.5", "1.0", "+Inf")] == [
                1,
                1,
                2,
            ]
        else:
            assert samples[metric.name, labels, None] == value
    kinds = {family.name: family.type for family in families}
    units = {family.name: family.unit for family in families}
    for metric in catalogue.CATALOGUE:
        assert kinds[metric.family] == metric.kind
        assert form == text.PROMETHEUS or units[metric.family] == metric.unit


def test_numbers_that_are_none_are_told_as_such() -> None:
    readings = [
        Reading(catalogue.WAITING, ("home", name), value)
        for name, value in (("a", math.inf), ("b", -math.inf), ("c", math.nan))
    ]
    told = text.expose(readings, text.PROMETHEUS).decode()
    assert re.findall(r"} (\S+)$", told, re.MULTILINE) == ["+Inf", "-Inf", "NaN"]


# the books as metrics


def told(readings: Iterator[Reading]) -> dict[tuple[str, ...], float | Spread]:
    return {(reading.metric.name, *reading.labels): reading.value for reading in readings}


def test_books_become_readings_and_every_known_reason_is_there_at_zero() -> None:
    account = Account(
        frames=9,
        captured=7,
        stored=2,
        waiting=1,
        dropped=3,
        refused=1,
        reasons={"evicted": 2, "conflict": 1, "gate-small": 4},
    )
    found = told(books.Books().read({("home", "door"): [account]}))
    assert found["facerelay_faces_dropped_total", "home", "door", "evicted"] == 2
    assert found["facerelay_faces_dropped_total", "home", "door", "other"] == 1
    assert found["facerelay_faces_dropped_total", "home", "door", "expired"] == 0
    assert found["facerelay_faces_refused_total", "home", "door", "conflict"] == 1
    assert found["facerelay_unsent_total", "home", "door", "gate-small"] == 4
    assert found["facerelay_faces_unaccounted", "home", "door"] == 0
    assert found["facerelay_faces_waiting", "home", "door"] == 1
    assert ("facerelay_face_latency_p99_seconds", "home", "door") not in found


def test_a_camera_is_dark_by_the_word_of_the_outbox_that_was_heard_last() -> None:
    now = datetime.now(UTC)
    measures = Measures(Counters(), limit=1, now=lambda: now)
    gone = Ledger(outbox="a" * 8, cameras={"home/door": Account(captured=2, waiting=2, dark_since=now)})
    measures.hear("home", gone.model_copy(update={"link": LinkHealth(time=now)}))
    dark = ("facerelay_camera_dark", "home", "door")
    assert told(asyncio.run(measures.read()))[dark] == 1
    now += timedelta(seconds=10)
    there = Ledger(
        outbox="b" * 8, cameras={"home/door": Account(captured=1, waiting=1)}, link=LinkHealth(time=now)
    )
    measures.hear("home", there)
    found = told(asyncio.run(measures.read()))
    assert found[dark] == 0
    assert found["facerelay_faces_captured_total", "home", "door"] == 3


def test_a_stranger_cannot_make_names_of_reasons_or_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MOST_CAMERAS", 3)
    account = Account(captured=1, refused=1, reasons={f"made-up-{n}": n for n in range(60)})
    cameras = {("home", f"c{n}"): [account] for n in range(10)}
    found = told(books.Books().read(cameras))
    assert {labels[1:3] for labels in found} == {
        ("home", "c0"),
        ("home", "c1"),
        ("home", "c2"),
        ("other", "other"),
    }
    assert found["facerelay_faces_captured_total", "other", "other"] == 7
    assert not [labels for labels in found if "made-up" in labels[-1]]


def test_a_face_that_leaves_its_column_is_no_new_beginning_of_a_counter() -> None:
    one = books.Books()
    name = ("facerelay_faces_dropped_total", "home", "door", "evicted")

    def dropped(n: int) -> object:
        return told(one.read({("home", "door"): [Account(dropped=n, reasons={"evicted": n})]}))[name]

    assert [dropped(n) for n in (10, 9, 11, 2, 3)] == [10, 10, 11, 2, 3]


def test_lately_is_an_hour_or_two() -> None:
    now = 0.0
    lately = Lately(clock=lambda: now)

    def dropped(n: int) -> int:
        return lately.since({"home/door": Account(dropped=n, reasons={"evicted": n})})["home/door"].dropped

    assert dropped(5) == 0  # from before we looked
    assert dropped(8) == 3
    now = 3600.0
    assert dropped(8) == 3
    now = 7200.0
    assert dropped(8) == 0


def test_a_store_tells_what_it_heard_and_no_more_than_it_can_hold() -> None:
    measures = Measures(Counters(), limit=7)
    for n in range(3000):
        measures.hear(
            "home", Ledger(outbox=f"{n:08x}", cameras={"home/door": Account(captured=1, waiting=1)})
        )
    many = {f"away/c{n}": Account() for n in range(12_000)}
    measures.hear("away", Ledger(outbox="00000001", cameras=many))
    measures.hear("yard", Ledger(outbox="00000002", cameras={"yard/door": Account(captured=7)}))
    found = told(asyncio.run(measures.read()))
    assert found["facerelay_faces_captured_total", "home", "door"] == 1000
    assert found["facerelay_faces_captured_total", "yard", "door"] == 7
    assert found["facerelay_books_age_seconds", "home"] == pytest.approx(0, abs=30)
    assert found["facerelay_store_in_hand_limit",] == 7
    assert len(found) < 60 * (catalogue.MOST_CAMERAS + 10)


def test_a_retained_ledger_is_as_old_as_it_says_itself() -> None:
    now = datetime.now(UTC)
    measures = Measures(Counters(), limit=7, now=lambda: now)
    old = LinkHealth(time=now - timedelta(seconds=500))
    for _ in range(2):  # at each connection the broker gives it again
        measures.hear("home", Ledger(outbox="a" * 8, cameras={"home/door": Account()}, link=old))
    found = told(asyncio.run(measures.read()))
    assert found["facerelay_books_age_seconds", "home"] == 500
    assert found["facerelay_alarms", "critical", "silent"] == 1
    measures.hear("home", Ledger(outbox="a" * 8, cameras={}, link=LinkHealth(time=now)))
    found = told(asyncio.run(measures.read()))
    assert found["facerelay_books_age_seconds", "home"] == 0
    assert found["facerelay_alarms", "critical", "silent"] == 0


def test_what_an_audit_has_missed_is_told_and_alarms() -> None:
    measures = Measures(Counters(), limit=7)
    health = LinkHealth(time=datetime.now(UTC))

    def found(lost: int | None) -> dict[tuple[str, ...], float | Spread]:
        measures.hear("home", Ledger(outbox="a" * 8, cameras={}, link=health, lost=lost))
        return told(asyncio.run(measures.read()))

    assert ("facerelay_faces_lost", "home") not in found(None)
    assert found(2)["facerelay_faces_lost", "home"] == 2
    assert found(2)["facerelay_alarms", "critical", "lost"] == 1
    assert found(0)["facerelay_faces_lost", "home"] == 0
    assert found(0)["facerelay_alarms", "critical", "lost"] == 0


def test_a_source_that_fails_takes_no_other_with_it() -> None:
    meters = Meters()

    async def well() -> list[Reading]:
        return [Reading(catalogue.OUTBOX, (), 1)]

    async def ill() -> list[Reading]:
        raise OSError("no disk")

    meters.add(ill)
    meters.add(well)
    assert [reading.value for reading in asyncio.run(meters.read())] == [1]
    assert meters.failures == 1


# the port


async def page(headers: object) -> serve.Answer:
    assert headers is not None
    return serve.Answer(HTTPStatus.OK, b"hello\n")


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[int]:
    port = free_port()
    async with serve.serving(host, port, {"/metrics": page}, called="metrics.port"):
        await asyncio.to_thread(eventually, lambda: answers(port))
        yield port


async def say(port: int, what: bytes) -> bytes:
    """Say something to the port; returns all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(what)
    try:
        async with asyncio.timeout(15):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: localhost:9\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.0\r\nhost: [::1]:9\r\n\r\n", b"200"),
        (b"HEAD /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
        (b"GET /else HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"405"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"421"),
        (b"\x16\x03\x01\xff\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b""),
    ],
)
def test_the_port_answers_what_it_should_and_nothing_else(request_: bytes, status: bytes) -> None:
    async def ask() -> bytes:
        async with listening() as port:
            return await say(port, request_)

    answer = asyncio.run(ask())
    assert answer[9:12] == status
    assert answer.endswith(b"hello\n") == (status == b"200" and not request_.startswith(b"HEAD"))


def test_who_says_half_of_it_is_sent_away_and_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "_REQUEST_S", 1.0)

    async def ask() -> tuple[list[bytes], bytes, bytes]:
        async with listening() as port:
            many = [asyncio.create_task(say(port, b"GET /met")) for _ in range(32)]
            await asyncio.sleep(0.3)
            beyond = await say(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            halves = await asyncio.gather(*many)
            return halves, beyond, await say(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")

    halves, beyond, after = asyncio.run(ask())
    assert set(halves) == {b""}
    assert beyond.startswith(b"HTTP/1.1 200")
    assert after.endswith(b"hello\n")


def test_a_port_that_is_taken_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve, "_AGAIN_S", 0.1)

    async def ask(taken: socket.socket) -> bytes:
        port = taken.getsockname()[1]
        async with serve.serving("127.0.0.1", port, {"/metrics": page}, called="metrics.port"):
            while "metrics.port" not in caplog.text:
                await asyncio.sleep(0.02)
            taken.close()
            while "metrics on" not in caplog.text:
                await asyncio.sleep(0.02)
            return await say(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")

    caplog.set_level("INFO")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        assert asyncio.run(ask(taken)).endswith(b"hello\n")


def test_settings_keep_the_port_on_loopback_unless_the_user_says_so() -> None:
    with pytest.raises(settings.ConfigError, match=r"metrics\.allow_insecure"):
        settings.load(None, flags=["metrics.host=0.0.0.0"], environ={})
    config = settings.load(None, flags=["metrics.host=0.0.0.0", "metrics.allow_insecure=true"], environ={})
    assert [config.metrics.port_of(role) for role in catalogue.ALL] == [9470, 9471, 9472, 9473, 9474]
    assert settings.load(None, flags=["metrics.port=0"], environ={}).metrics.port_of("store") == 0
    with pytest.raises(settings.ConfigError, match=r"metrics\.port"):
        settings.load(None, flags=["metrics.port=65535"], environ={})


# rules and dashboard


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


@pytest.mark.parametrize(
    "words",
    [
        ("check", "rules", "--lint=all", "--lint-fatal", "facerelay.rules.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "facerelay.rules.test.yml"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_promtool_passes_the_rules(words: tuple[str, ...]) -> None:
    found = promtool(*words, where=RULES.parent)
    assert found.returncode == 0, (found.stdout + found.stderr).decode()


def test_each_alert_is_tested_to_be_quiet_to_fire_and_to_clear() -> None:
    tests = yaml.safe_load((RULES.parent / "facerelay.rules.test.yml").read_text())["tests"]
    expected = {
        case["name"]: [
            bool(each["exp_alerts"]) for each in case["alert_rule_test"] if each["alertname"] == case["name"]
        ]
        for case in tests
    }
    assert expected.keys() == alerts().keys()
    assert all(each == [False, True, False] for each in expected.values())


def expressions() -> dict[str, str]:
    """Each expression of rules and dashboard, by where it stands."""
    found = {name: str(rule["expr"]) for name, rule in alerts().items()}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    return found


@pytest.mark.parametrize("where", expressions())
def test_rules_and_panels_ask_for_metrics_and_labels_that_are_there(where: str) -> None:
    expression = expressions()[where]
    names = {base(name) for name in NAME.findall(expression)}
    assert names <= BY_NAME.keys()
    assert names or "up{" in expression
    for name, selector in re.findall(r"\b((?:facerelay|process)_[a-z0-9_]+)\{([^}]*)\}", expression):
        asked = set(re.findall(r"([a-z_]+)\s*[=!]", selector)) - {"job"}
        assert asked <= {*BY_NAME[base(name)].labels, "le"}, name


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert {"site", "camera"} < variables.keys()
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(board)))
    assert used <= variables.keys()
    for panel in panels:
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert "__inputs" not in board


# the real chain


def get(url: str, accept: str = "*/*") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - http on loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def port_of(part: Part) -> str:
    """Return where a role said that it serves its metrics, last."""
    found: list[str] = []

    def said() -> bool:
        found[:] = re.findall(r"metrics on http://(\S+?)/metrics", part.text())
        return bool(found)

    eventually(said)
    return found[-1]


SCENE: dict[str, Any] = {
    "camera": [{"name": "door", "source": "scene"}],
    "metrics": {"enabled": True, "port": 0},
}


@contextmanager
def role(folder: Path, name: str, side: str) -> Iterator[Part]:
    command = [sys.executable, "-m", "facerelay", name, "-c", str(folder / f"{side}.toml")]
    part = Part(name, command, folder / f"{name}.log")
    part.start()
    try:
        yield part
    finally:
        part.end()


SELDOM = {
    "facerelay_link_up", "facerelay_edge_broker_dropped_total", "facerelay_receipt_round_trip_seconds",
    "facerelay_faces_lost", "facerelay_face_latency_median_seconds", "facerelay_face_latency_p99_seconds",
    "facerelay_unsent_total", "facerelay_intake_connected", "facerelay_intake_pending",
}  # fmt: skip
"""Not there before there is something to tell."""


def test_every_role_tells_what_the_list_says_and_a_cut_raises_the_alert_and_clears_it(tmp_path: Path) -> None:
    more = {**SCENE, "gallery": {"port": free_port(), "cache": str(tmp_path / "cache")}}
    with (
        chain(tmp_path, **more) as c,
        role(tmp_path, "capture", "edge") as capture,
        role(tmp_path, "gallery", "cloud") as gallery,
    ):
        parts = {"capture": capture, "broker": c["cloud-broker"], "forward": c["forward"],
                 "store": c["store"], "gallery": gallery}  # fmt: skip
        places = {name: port_of(part) for name, part in parts.items()}
        with prometheus(tmp_path / "prometheus", places) as ask:
            for name, place in places.items():
                eventually(lambda place=place: get(f"http://{place}/readyz") == (200, "ready\n"))  # type: ignore[misc]
                assert get(f"http://{place}/healthz") == (200, "alive\n")
                judge(name, f"http://{place}/metrics")
            eventually(partial(ask, 'facerelay_link_up{site="home"} == 1'))
            for where, expression in expressions().items():
                plain = re.sub(r"\$__rate_interval", "1m", re.sub(r"\$(site|camera)", ".*", expression))
                assert ask(plain) is not None, where
            assert not ask('ALERTS{alertname=~"FacerelayLinkDown|FacerelayRoleNotReady"}')
            c["cloud-broker"].kill()
            eventually(partial(ask, 'ALERTS{alertname="FacerelayLinkDown", site="home"}'))
            eventually(partial(ask, 'ALERTS{alertname="FacerelayRoleNotReady", role="store"}'))
            eventually(partial(ask, 'ALERTS{alertname="FacerelayRoleDown", role="broker"}'))
            c["cloud-broker"].restart()
            cleared = 'ALERTS{alertname=~"FacerelayLinkDown|FacerelayRoleNotReady"}'
            eventually(lambda: ask(cleared) == [], timeout=40)


def judge(name: str, url: str) -> None:
    """See that a role tells what the list says of it, in both formats."""
    _, plain = get(url)
    found = promtool("check", "metrics", stdin=plain.encode())
    assert (found.returncode, found.stdout) == (0, b""), found.stdout
    status, opened = get(url, "application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert opened.endswith("# EOF\n")
    assert list(openmetrics.text_string_to_metric_families(opened))  # type: ignore[no-untyped-call] # as published
    there = {
        base(line.split("{")[0].split(" ")[0]) for line in plain.splitlines() if not line.startswith("#")
    }
    listed = {metric.name for metric in catalogue.CATALOGUE if name in metric.roles}
    assert there <= listed
    # A store has no books yet, and a broker that just began may not know its figures.
    silent = (
        {metric.name for metric in catalogue.CATALOGUE if "capture" in metric.roles}
        if name == "store"
        else set()
    )
    assert listed - there <= SELDOM | silent | {"facerelay_books_age_seconds"}


@contextmanager
def prometheus(folder: Path, places: dict[str, str]) -> Iterator[Callable[[str], list[Any]]]:
    """Run a real Prometheus on loopback, with our rules; yields what asks it."""
    folder.mkdir()
    jobs = [{"targets": [place], "labels": {"role": name}} for name, place in places.items()]
    known = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "facerelay", "static_configs": jobs}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(known))
    at = f"127.0.0.1:{free_port()}"
    command = [need("prometheus"), f"--config.file={folder}/prometheus.yml",
               f"--storage.tsdb.path={folder}/data", f"--web.listen-address={at}"]  # fmt: skip
    server = Part("prometheus", command, folder / "log")
    server.start()

    def ask(query: str) -> list[Any]:
        status, found = get(f"http://{at}/api/v1/query?query={quote(query)}")
        assert status == 200, found
        rows: list[Any] = json.loads(found)["data"]["result"]
        return rows

    def ready() -> bool:
        try:
            return get(f"http://{at}/-/ready")[0] == 200
        except OSError:
            return False

    try:
        eventually(ready)
        yield ask
    finally:
        server.end()


def test_faces_that_a_full_outbox_drops_are_counted_with_their_reason_and_alarm(
    tmp_path: Path, make_face: Make
) -> None:
    """Real broker at the edge, no cloud: nothing is answered, and the disk budget is spent."""

    async def run(url: str) -> list[dict[tuple[str, ...], float | Spread]]:
        config = Config.model_validate(
            {"broker": {"url": url}, "outbox": {"path": str(tmp_path / "o.db"), "max_bytes": 60_000}}
        )
        meters = Meters()
        with open_outbox(config) as outbox:
            async with relaying(config, outbox, connector(config), meters=meters):
                found = [told(iter(await meters.read()))]
                for _ in range(12):
                    frozen = make_face(outbox=outbox.id, run=outbox.run, seq=outbox.number())
                    await asyncio.wrap_future(outbox.put(frozen, chosen=time.time()))
                while True:
                    found.append(told(iter(await meters.read())))
                    if found[-1].get(("facerelay_faces_captured_total", "home", "door")) == 12:
                        return found
                    await asyncio.sleep(0.1)

    with servers.mosquitto() as broker:
        before, *_, after = asyncio.run(run(broker.url))
    dropped = after["facerelay_faces_dropped_total", "home", "door", "evicted"]
    assert isinstance(dropped, int)
    assert dropped > 0
    assert after["facerelay_faces_waiting", "home", "door"] == 12 - dropped
    assert after["facerelay_faces_unaccounted", "home", "door"] == 0
    assert after["facerelay_outbox_bytes",] <= 60_000  # type: ignore[operator]
    assert before["facerelay_alarms", "critical", "dropped"] == 0
    assert after["facerelay_alarms", "critical", "dropped"] == 1
