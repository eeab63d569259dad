"""Where a role's spans go, by the settings."""

from __future__ import annotations

from facerelay.sections import Trace
from facerelay.tracing import OFF, Tracer


def open_tracer(settings: Trace, *, role: str, site: str | None) -> Tracer:
    """Return what takes spans as the settings say; nothing is sent yet.

    Args:
        settings: where to, and of how many faces.
        role: who speaks.
        site: where the role is, if that is at a site.

    Raises:
        ModuleNotFoundError: traces are wanted, and the `trace` extra is not installed.
    """
    if settings.endpoint is None:
        return OFF
    from facerelay.otlp import Otlp  # noqa: PLC0415 - an extra, loaded where traces are on

    return Otlp(settings.endpoint, ratio=settings.ratio, role=role, site=site)
