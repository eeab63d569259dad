"""Topics as NATS has them, and back: by the table that its MQTT goes by."""

from __future__ import annotations

from typing import Final

SLACK_BYTES: Final = 65_536
"""What a message of NATS may have beside its payload: its subject and headers."""

_DOT: Final = "//"
_MARK: Final = "\0"


def subject(topic_filter: str) -> str:
    """Return a topic filter as NATS has it: `/` is `.`, `+` is `*`, `#` is `>`, a dot in a name is `//`."""
    levels = [level.replace(".", _DOT) for level in topic_filter.split("/")]
    return ".".join({"": "/", "+": "*", "#": ">"}.get(level, level) for level in levels)


def topic(name: str) -> str:
    """Return the topic on which a message of this subject was published."""
    levels = name.replace(_DOT, _MARK).split(".")
    return "/".join("" if level == "/" else level.replace(_MARK, ".") for level in levels)


def covers(wide: str, subject: str) -> bool:
    """Whether all that a subject, or a filter of NATS, stands for is in another one, too."""
    theirs, ours = wide.split("."), subject.split(".")
    for place, level in enumerate(theirs):
        if level == ">":
            return place < len(ours)
        if place == len(ours) or (level != ours[place] and (level != "*" or ours[place] == ">")):
            return False
    return len(theirs) == len(ours)
