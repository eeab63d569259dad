"""Metrics and traces: how a role is watched from outside."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, field_validator, model_validator

from facerelay.sections.base import Section, address, is_loopback, is_open

ROLES: Final = ("capture", "broker", "forward", "store", "gallery")
"""In the order of their ports."""


class Metrics(Section):
    """Metrics and health of each role, for Prometheus and container engines."""

    enabled: bool = Field(
        default=False,
        title="Enabled",
        description="Each role serves /metrics, /healthz and /readyz on a port of its own.",
    )
    host: str = Field("127.0.0.1", title="Host", description="Address to listen on: loopback only.")
    port: Annotated[int, Field(ge=0, le=65_535 - len(ROLES) + 1)] = Field(
        9470,
        title="First port",
        description="Of capture; broker has the next one, then forward, store, gallery. 0 takes free ones.",
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Listen beyond loopback, without TLS and password: it tells names and counts.",
    )

    @model_validator(mode="after")
    def _on_loopback(self) -> Metrics:
        if not self.allow_insecure and not is_loopback(self.host):
            raise ValueError(
                "metrics.host: whoever reaches it may read, so it listens on loopback only (or set"
                " metrics.allow_insecure = true, in a network where only Prometheus does)"
            )
        return self

    def port_of(self, role: str) -> int:
        """Return a role's port; 0 where it is to be a free one."""
        return self.port and self.port + ROLES.index(role)


class Trace(Section):
    """One trace a face, by OpenTelemetry (the `trace` extra)."""

    endpoint: str | None = Field(
        None,
        title="Endpoint",
        description="OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces; unset: no traces.",
    )
    ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, title="Ratio", description="The share of faces that is traced: the same one at edge and cloud."
    )
    allow_http: bool = Field(
        default=False, title="Allow http", description="Talk to an endpoint beyond loopback without TLS."
    )

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = address(value, "http", "https")
        if parts is None or parts.path in {"", "/"}:
            raise ValueError("write it with its path, as https://host:4318/v1/traces")
        if "@" in parts.netloc:
            raise ValueError("put what authorises you into OTEL_EXPORTER_OTLP_HEADERS, not into the endpoint")
        return value

    @model_validator(mode="after")
    def _encrypted(self) -> Trace:
        if is_open(self.endpoint or "") and not self.allow_http:
            raise ValueError(
                "trace.endpoint is http, beyond this machine: use https, or set trace.allow_http = true"
            )
        return self
