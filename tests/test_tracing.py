from __future__ import annotations

import asyncio
import gzip
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import servers
from chains import chain, eventually, facerelay
from facerelay import face, settings, tracing
from facerelay.commands.traces import open_tracer
from facerelay.sections import Trace
from servers import free_port


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP, and keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.open = threading.Event()
        self.open.set()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for resource in request.resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_plain(span, about["service.name"]) for span in scope.spans]

    def traces(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for span in list(self.spans):
            found.setdefault(span["trace"], []).append(span)
        return found


def _plain(span: Span, service: str) -> dict[str, Any]:
    return {
        "service": service, "name": span.name, "trace": span.trace_id.hex(), "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(), "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano, "error": span.status.code == span.status.STATUS_CODE_ERROR,
        "facts": {each.key: each.value for each in span.attributes},
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.open.wait(60)
        self.server.paths.add(self.path)
        self.server.take(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def tracer(endpoint: str, **more: Any) -> tracing.Tracer:  # noqa: ANN401 - any setting
    return open_tracer(Trace(endpoint=endpoint, **more), role="capture", site="home")


SCENE: dict[str, Any] = {"camera": [{"name": "door", "source": "scene", "pace": False}]}


def test_one_trace_a_face_from_camera_to_receipt_and_its_id_is_the_faces_own(tmp_path: Path) -> None:
    with collector() as server:
        with chain(tmp_path, **SCENE, trace={"endpoint": server.endpoint}) as c:
            done = facerelay("capture", "--exit", "-c", str(tmp_path / "edge.toml"))
            assert done.returncode == 0, done.stderr
            c["store"].end()
            keys = [path.name for path in c.objects()]
        ids = {uuid.UUID(match[1]).hex for key in keys if (match := re.search(r"-([0-9a-f-]{36})-", key))}
        assert ids
        assert server.paths == {"/v1/traces"}
        traces = server.traces()
        assert traces.keys() == ids
        for spans in traces.values():
            judge(spans)


def judge(spans: list[dict[str, Any]]) -> None:
    """See that a face's trace tells its whole way."""
    names = [span["name"] for span in spans]
    assert sorted(names) == ["capture", "face", "publish", "receipt", "store"]
    by_name = {span["name"]: span for span in spans}
    whole = by_name["face"]
    assert whole["parent"] == ""
    assert {span["parent"] for name, span in by_name.items() if name != "face"} == {whole["id"]}
    assert len({span["id"] for span in spans}) == len(spans)
    services = {name: span["service"] for name, span in by_name.items()}
    assert services.pop("store") == "facerelay-store"
    assert set(services.values()) == {"facerelay-capture"}
    for span in spans:
        assert span["start"] <= span["end"]
        assert not span["error"]
        assert span["start"] >= whole["start"]  # one clock here
    assert (
        by_name["publish"]["start"] <= by_name["store"]["start"] <= by_name["receipt"]["end"] == whole["end"]
    )
    assert whole["facts"]["facerelay.outcome"].string_value == "stored"
    assert whole["facts"]["facerelay.camera"].string_value == "door"


def test_a_collector_that_is_gone_costs_spans_and_nothing_else(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/v1/traces"
    with servers.mosquitto() as broker:
        known = {**SCENE, "delivery": "fast", "direct": True, "broker": {"url": broker.url}}
        path = tmp_path / "edge.toml"
        path.write_text(settings.template(settings.EDGE, {**known, "trace": {"endpoint": endpoint}}))
        done = facerelay("capture", "--exit", "-c", str(path))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "spans were not" in done.stderr
    assert done.stderr.count("spans were not taken") <= 1
    (account,) = json.loads(facerelay("ledger", "--json", "-c", str(path)).stdout)["cameras"].values()
    assert account["sent"] == account["captured"] > 0


def test_telling_never_waits_for_a_collector_that_stands_still_and_the_queue_has_an_end() -> None:
    with collector() as server:
        server.open.clear()
        trace = tracer(server.endpoint)
        for _ in range(20_000):
            trace.span(face.new_id(), "capture", start=1.0, end=2.0)
        asyncio.run(trace.close())
        assert not server.spans  # all of it returned while nothing was taken
        server.open.set()
        eventually(lambda: server.spans)
        assert len(server.spans) < 20_000


def test_a_fault_is_told_as_one() -> None:
    one = face.new_id()
    with collector() as server:
        trace = tracer(server.endpoint)
        trace.span(
            one, "face", start=tracing.born(one), end=time.time(), fault="refused:conflict", outcome="x"
        )
        asyncio.run(trace.close())
        eventually(lambda: server.spans)
        (span,) = server.spans
    assert span["error"]
    assert span["trace"] == uuid.UUID(one).hex
    assert int(span["id"], 16) == tracing.root(one)


def test_every_part_takes_the_same_faces_and_the_share_is_what_was_asked_for() -> None:
    ids = [face.new_id() for _ in range(4000)]
    few, some = ({i for i in ids if tracing.sampled(i, ratio)} for ratio in (0.1, 0.4))
    assert few < some
    assert 0.3 < len(some) / len(ids) < 0.5
    assert not any(tracing.sampled(i, 0) for i in ids)
    assert all(tracing.sampled(i, 1) for i in ids)
    assert not tracing.sampled("no id", 1)


def test_without_an_endpoint_nothing_is_loaded_and_nothing_taken() -> None:
    assert open_tracer(Trace(), role="store", site=None) is tracing.OFF
    assert not tracing.OFF.takes(face.new_id())
    asyncio.run(tracing.OFF.close())


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("http://10.0.0.7:4318/v1/traces", "allow_http"),
        ("http://127.0.0.1:4318", "with its path"),
        ("ftp://127.0.0.1/v1/traces", "https://host"),
        ("https://user:word@host/v1/traces", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://[::1/v1/traces", "https://host"),
    ],
)
def test_a_wrong_endpoint_is_said_before_anything_runs(endpoint: str, why: str) -> None:
    with pytest.raises(settings.ConfigError, match=re.escape(why)) as refused:
        settings.load(None, flags=[f"trace.endpoint={endpoint}"], environ={})
    assert "word" not in str(refused.value)
