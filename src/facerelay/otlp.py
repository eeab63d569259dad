"""Spans by OTLP over HTTP, with OpenTelemetry's own SDK (the `trace` extra).

They go through a bounded queue to a thread: a collector that is slow or gone costs spans, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from facerelay import __version__
from facerelay.seldom import Seldom
from facerelay.tracing import Name, Value, root, sampled

log = logging.getLogger(__name__)

_QUEUE: Final = 4096
_BATCH: Final = 512
_EVERY_MS: Final = 2000
_ANSWER_S: Final = 5.0
_GOODBYE_S: Final = 3.0
_KINDS: Final[Mapping[Name, SpanKind]] = {
    "face": SpanKind.INTERNAL, "capture": SpanKind.INTERNAL, "publish": SpanKind.PRODUCER,
    "store": SpanKind.CONSUMER, "receipt": SpanKind.INTERNAL,
}  # fmt: skip
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class Otlp:
    """Takes spans, and sends them to a collector.

    Args:
        endpoint: where, with its path (`/v1/traces`).
        ratio: the share of faces that is traced.
        role: part of the service's name.
        site: where the role is, if that is at a site.
    """

    def __init__(self, endpoint: str, *, ratio: float, role: str, site: str | None) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Exporter` says what fails
        self._ratio = ratio
        self._ids = _Ids()
        self._exporter = _Exporter(OTLPSpanExporter(endpoint=endpoint, timeout=_ANSWER_S), endpoint)
        about = {
            "service.namespace": "facerelay", "service.name": f"facerelay-{role}",
            "service.version": __version__, **({"facerelay.site": site} if site else {}),
        }  # fmt: skip
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(about), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter,
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=_EVERY_MS,
            )
        )
        self._tracer = self._provider.get_tracer("facerelay", __version__)

    def takes(self, face_id: str) -> bool:
        """Whether this face belongs to the share."""
        return sampled(face_id, self._ratio)

    def span(
        self, face_id: str, name: Name, *, start: float, end: float, fault: str = "", **facts: Value
    ) -> None:
        """Queue a span that is over."""
        whole = SpanContext(UUID(face_id).int, root(face_id), is_remote=True, trace_flags=_SAMPLED)
        self._ids.whole = whole if name == "face" else None
        span = self._tracer.start_span(
            name,
            context=Context() if name == "face" else set_span_in_context(NonRecordingSpan(whole), Context()),
            kind=_KINDS[name],
            attributes={f"facerelay.{key}": value for key, value in facts.items()},
            start_time=round(start * 1e9),
        )
        span.set_status(Status(StatusCode.ERROR, fault) if fault else Status(StatusCode.OK))
        span.end(round(max(start, end) * 1e9))

    async def close(self) -> None:
        """Send what is left; a collector that does not answer in time holds nobody up."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            self._provider.shutdown()
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=shut_down, name="traces end", daemon=True).start()
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await done.wait()
        except TimeoutError:
            self._exporter.shutdown()
            log.warning("the last spans were not sent in %.0f s", _GOODBYE_S)


class _Ids(RandomIdGenerator, threading.local):
    """Ids of new spans: random, but for the `face` span, whose ids every part must know.

    Attributes:
        whole: the ids of the span that this thread is about to begin, if they are given.
    """

    whole: SpanContext | None = None

    def generate_trace_id(self) -> int:
        return self.whole.trace_id if self.whole else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.whole.span_id if self.whole else super().generate_span_id()


class _Exporter(SpanExporter):
    """An exporter whose failures are logged now and then, in a line."""

    def __init__(self, inner: SpanExporter, endpoint: str) -> None:
        self._inner = inner
        self._endpoint = endpoint
        self._seldom = Seldom(log, every_s=60.0)
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            form = "%d spans were not taken by trace.endpoint = %s; the work goes on without"
            self._seldom.say(logging.WARNING, "export", form, len(spans), self._endpoint)
        return result

    def shutdown(self) -> None:
        if not self._closed:
            self._closed = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
