"""What a Parquet file unpacks to, by its pages' own headers: its footer may say anything.

A reader makes room for each page as its header asks, and some encodings make much of little. Headers are
Thrift's compact protocol, of which this reads what a page header can have.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow.parquet as pq

_PLAIN_AND_DICTIONARY: Final = frozenset({0, 2, 3, 8})
"""Encodings by whose pages' sizes the values' sizes are known; 3, runs, is for numbers and truth alone."""

_TYPE, _UNPACKED, _PACKED = 1, 2, 3
_OF_DATA, _OF_DICTIONARY, _OF_DATA_2 = 5, 7, 8
_ENCODING: Final = {_OF_DATA: 2, _OF_DICTIONARY: 2, _OF_DATA_2: 4}

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 1, 2, 3, 7, 8, 12
_INTEGERS: Final = frozenset({4, 5, 6})
_DEEPEST: Final = 4
_LONGEST: Final = 10


class PageError(ValueError):
    """A page header that no writer of catalogues makes."""


def unpacked(data: bytes, known: pq.FileMetaData) -> int:
    """Return the bytes to which all pages of a file unpack.

    Raises:
        PageError: a page lies where it cannot, or is encoded so that more may come out of it.
    """
    total = 0
    for group in range(known.num_row_groups):
        for number in range(known.num_columns):
            column = known.row_group(group).column(number)
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < start:
                start = column.dictionary_page_offset
            total += _column(data, start, start + column.total_compressed_size)
    return total


def _column(data: bytes, at: int, end: int) -> int:
    if not 0 <= at <= end <= len(data):
        raise PageError("a column lies outside the file")
    total = 0
    while at < end:
        header, at = _struct(data, at, 0)
        packed, size = header.get(_PACKED), header.get(_UNPACKED)
        if not isinstance(packed, int) or not isinstance(size, int) or packed < 0 or size < 0:
            raise PageError("a page has no size")
        for kind, field in _ENCODING.items():
            if isinstance(header.get(kind), dict) and header[kind].get(field) not in _PLAIN_AND_DICTIONARY:
                raise PageError("a page is encoded as no catalogue's is")
        total += size
        at += packed
    return total


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Read one struct: numbers and structs by their fields' numbers; text is passed over."""
    if depth > _DEEPEST:
        raise PageError("a page header is too deep")
    found: dict[int, Any] = {}
    field = 0
    while True:
        (head,) = _take(data, at, 1)
        at += 1
        kind = head & 15
        if not kind:
            return found, at
        if head >> 4:
            field += head >> 4
        else:
            field, at = _number(data, at)
        if kind in _INTEGERS:
            found[field], at = _number(data, at)
        elif kind == _STRUCT:
            found[field], at = _struct(data, at, depth + 1)
        elif kind == _BINARY:
            length, at = _varint(data, at)
            _take(data, at, length)
            at += length
        elif kind in {_TRUE, _FALSE}:
            pass
        elif kind in {_BYTE, _DOUBLE}:
            at += 1 if kind == _BYTE else 8
        else:
            raise PageError("a page header has a field that it cannot have")


def _take(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise PageError("a page header ends too soon")
    return data[at : at + length]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST):
        (byte,) = _take(data, at + place, 1)
        value |= (byte & 127) << (7 * place)
        if byte < 128:  # noqa: PLR2004 - the bit that says that more follow
            return value, at + place + 1
    raise PageError("a number in a page header is too long")


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at
