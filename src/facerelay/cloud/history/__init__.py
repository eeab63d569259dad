"""What happened when: kept by the store as it hears the books, read by whoever asks of the past."""

from facerelay.cloud.history.period import Band, BandKind, Counts, Hour, Period
from facerelay.cloud.history.reading import (
    MOST_HOURS,
    ROOT,
    outbox_key,
    read_day,
    read_marks,
    read_period,
    store_key,
)

__all__ = [
    "MOST_HOURS", "ROOT", "Band", "BandKind", "Counts", "Hour", "Period", "outbox_key", "read_day",
    "read_marks", "read_period", "store_key",
]  # fmt: skip
