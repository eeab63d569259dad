"""A shard's catalogue: Parquet that any tool reads, and that is looked at before it is believed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from facerelay.cloud.shards.row import Row, RowError

MOST_BYTES: Final = 32_000_000
"""Of one catalogue; a shard of 256 MB of the smallest faces has less."""

_MOST_ROWS: Final = 1_000_000
_MOST_UNPACKED: Final = 400_000_000
_MICROS: Final = pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema([
    pa.field("id", pa.string(), nullable=False),
    pa.field("site", pa.string(), nullable=False),
    pa.field("camera", pa.string(), nullable=False),
    pa.field("time", _MICROS, nullable=False),
    pa.field("arrived", _MICROS, nullable=False),
    pa.field("clock", pa.string(), nullable=False),
    pa.field("outbox", pa.string(), nullable=False),
    pa.field("run", pa.string(), nullable=False),
    pa.field("seq", pa.int64(), nullable=False),
    pa.field("score", pa.float64()),
    pa.field("quality", pa.float64()),
    pa.field("sealed", pa.bool_(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),
    pa.field("extension", pa.string(), nullable=False),
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("length", pa.int64(), nullable=False),
    pa.field("tar", pa.string(), nullable=False),
])  # fmt: skip
_NAMES: Final = [field.name for field in fields(Row)]


class CatalogueError(ValueError):
    """Bytes that are no catalogue of ours."""


def write(rows: Sequence[Row], *, tar: str) -> bytes:
    """Return a catalogue as Parquet.

    Args:
        rows: the faces of a shard.
        tar: the key of its tar.
    """
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _NAMES}
    columns["tar"] = [tar] * len(rows)
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=SCHEMA), file, compression="zstd")
    return file.getvalue()


def read(data: bytes, *, tar: str) -> list[Row]:
    """Read a catalogue.

    Args:
        data: its bytes, of which there are `MOST_BYTES` at most.
        tar: the key of the shard that it has to be of.

    Raises:
        CatalogueError: it is none, it is another shard's, or it would unpack to more than can be.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _look(file)
        table = file.read(columns=[*_NAMES, "tar"])
        lines = table.to_pylist()
        if any(line.pop("tar") != tar for line in lines):
            raise CatalogueError("it names another tar")
        return [Row(**line) for line in lines]
    except RowError as error:
        raise CatalogueError(str(error)) from error
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise CatalogueError(f"not a catalogue: {type(error).__name__}") from error


def _look(file: pq.ParquetFile) -> None:
    """See by its footer that it is ours, and no larger unpacked than can be."""
    known = file.metadata
    unpacked = sum(known.row_group(n).total_byte_size for n in range(known.num_row_groups))
    if known.num_rows > _MOST_ROWS or unpacked > _MOST_UNPACKED:
        raise CatalogueError(f"{known.num_rows} rows, {unpacked} bytes unpacked: more than can be")
    if not SCHEMA.equals(file.schema_arrow.remove_metadata()):
        raise CatalogueError("its columns are others")
