"""The log on standard error: plain lines for people, JSON lines for machines."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import click

FORMS: Final = ("plain", "json")
VARIABLE: Final = "FACERELAY_LOG"
"""The environment's word for the form, for this process and for the roles that it starts."""

_PLAIN: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_MOST_WORDS: Final = 8_000
_MOST_TRACE: Final = 32_000
_KEYS: Final = re.compile(r"(?<=://)[^/?#@\s'\"]*:[^/?#@\s'\"]*@")
"""User and password in a URL."""

_CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What a terminal obeys, or what turns the order of letters: all but the tab and the end of a line."""

log = logging.getLogger("facerelay")


class JsonLines(logging.Formatter):
    """Makes of each record one JSON object on one line: `time`, `level`, `logger`, `message`, `exception`.

    No other attribute of a record gets out, so what a caller hangs on to one is not told; messages and
    tracebacks are of bounded length, and URLs lose their user and password.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, str] = {
            "time": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _fit(record.getMessage(), _MOST_WORDS),
        }
        trace = self.formatException(record.exc_info) if record.exc_info else record.exc_text
        if trace:
            said["exception"] = _fit(trace, _MOST_TRACE)
        return json.dumps(said)


class PlainLines(logging.Formatter):
    """Makes of each record a line for people; URLs lose their user and password.

    What a terminal would obey is escaped, and what follows a line's end is set in: no text from outside can
    be taken for a line of its own.
    """

    def __init__(self) -> None:
        super().__init__(_PLAIN)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it."""
        return harmless(_without_keys(super().format(record)).replace("\n", "\n  "))


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment: a progress bar puts itself in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error as it is now."""
        return sys.stderr


def set_up(*, verbose: bool = False, form: str = "plain") -> None:
    """Log to standard error, in one of `FORMS`."""
    handler = _StandardError()
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    if form == "json":
        os.environ[VARIABLE] = form
        logging.captureWarnings(capture=True)
        threading.excepthook = _thread_ended


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let parts say their warnings alone for as long as the block runs, unless all is asked for (`-v`)."""
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        for logger in loggers:
            logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)


def is_json() -> bool:
    """Whether the log is for machines."""
    return any(isinstance(handler.formatter, JsonLines) for handler in logging.getLogger().handlers)


def say(words: str, *, level: int = logging.INFO) -> None:
    """Say something to whoever ran a command: on standard error, as `facerelay: …` or as a line of JSON."""
    if is_json():
        log.log(level, "%s", words)
    else:
        click.echo(f"facerelay: {harmless(words)}", err=True)


def harmless(text: str) -> str:
    """Return a text as a terminal may show it: what it would obey is escaped."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def complain(words: str) -> None:
    """Say what went wrong, and what to do."""
    say(words, level=logging.ERROR)


def fault(error: BaseException) -> None:
    """Tell of an error that nobody expected."""
    if is_json():
        log.critical("a fault of facerelay: please report it", exc_info=error)
    else:
        sys.excepthook(type(error), error, error.__traceback__)
        click.echo("facerelay: this is a fault of facerelay: please report it", err=True)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    trace: types.TracebackType | None = ended.exc_traceback
    value: Any = ended.exc_value or ended.exc_type()
    name = ended.thread.name if ended.thread else "a thread"
    log.critical("%s ended by an error", name, exc_info=(ended.exc_type, value, trace))


def _fit(text: str, most: int) -> str:
    text = _without_keys(text)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} characters more)"


def _without_keys(text: str) -> str:
    return _KEYS.sub("***@", text)
