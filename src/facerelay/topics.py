"""Names on the wire: what travels under them besides faces is in `messages`.

Up: faces, `ledger/<site>/<outbox>` and its further parts, `link/<site>`. Down: `receipts/<site>/<outbox>`,
`stores/<store>`. At the edge alone: `link/<site>/reset`; in the cloud alone: `stores/<store>/<instance>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

UP: Final = b"1"
DOWN: Final = b"0"
"""Link state, as Mosquitto's bridge notifications have it."""


_KEPT: Final = ("receipts/#", "ledger/#", "link/#", "stores/#")


class TopicError(ValueError):
    """A topic template that cannot be published to."""


def shown(name: str) -> str:
    """Return a name from outside as a log line may show it: escaped, and of bounded length."""
    return ascii(name[:120])[1:-1]


@dataclass(frozen=True, slots=True)
class FaceTopic:
    """Where faces travel: a template such as `faces/{site}/{camera}`, or a fixed topic such as `image`.

    `#` at the end stands for `{site}/{camera}` when publishing, and for itself when subscribing.
    """

    template: str

    def __post_init__(self) -> None:
        plain = re.sub(r"\{(site|camera)\}", "x", self.template.removesuffix("/#"))
        if self.template == "#":
            raise TopicError("`#` alone would carry receipts back up: use a prefix such as `face_app/#`")
        if not plain or len(plain) > 200 or re.search(r"[#+{}\0\s]", plain):  # noqa: PLR2004 - far below MQTT's 65,535
            raise TopicError(f"{self.template!r} is not a topic: use names, `/`, {{site}}, {{camera}}")
        if plain.split("/")[0] in {"receipts", "ledger", "link", "stores", "$share", "$SYS"}:
            raise TopicError(f"{self.template!r} begins with a name that facerelay keeps for itself")
        if any(overlap(self.filter, own) for own in _KEPT):
            raise TopicError(
                f"{self.template!r} takes in what facerelay keeps for itself: begin it with a name"
            )

    def publish(self, site: str, camera: str) -> str:
        """Return the topic for one camera's faces."""
        return self._names.replace("{site}", site).replace("{camera}", camera)

    @property
    def named(self) -> FaceTopic:
        """The same, with the names that `#` stands for when publishing."""
        return FaceTopic(self._names)

    @property
    def _names(self) -> str:
        return self.template[:-1] + "{site}/{camera}" if self.template.endswith("/#") else self.template

    @property
    def filter(self) -> str:
        """The subscription that takes the faces of every camera."""
        return re.sub(r"[^/]*\{(?:site|camera)\}[^/]*", "+", self.template)


def overlap(one: str, other: str) -> bool:
    """Tell whether two topic filters have a topic in common."""
    for a, b in zip(one.split("/"), other.split("/"), strict=False):
        if "#" in (a, b):
            return True
        if a != b and "+" not in (a, b):
            return False
    longer = max(one.split("/"), other.split("/"), key=len)
    shorter = min(len(one.split("/")), len(other.split("/")))
    return len(longer) == shorter or longer[shorter:] == ["#"]


def receipts(site: str, outbox: str) -> str:
    """Return the topic of the receipts for one outbox."""
    return f"receipts/{site}/{outbox}"


def site_receipts(site: str) -> str:
    """Return the filter of all receipts for a site."""
    return f"receipts/{site}/#"


def ledger(site: str, outbox: str, part: int = 0) -> str:
    """Return the topic of one outbox's ledger, or of a further part of it; retained."""
    return f"ledger/{site}/{outbox}" + (f"/{part}" if part else "")


def site_ledgers(site: str) -> str:
    """Return the filter of all ledgers of a site."""
    return f"ledger/{site}/#"


LEDGERS: Final = "ledger/#"


def link(site: str) -> str:
    """Return the topic of a site's link state, retained: `1` or `0`."""
    return f"link/{site}"


def reset(site: str) -> str:
    """Return the topic on which capture asks the forwarder to make its connections anew; not retained."""
    return f"link/{site}/reset"


def hello(store: str) -> str:
    """Return the topic of a store's hello, retained."""
    return f"stores/{store}"


HELLOS: Final = "stores/+"


def beat(store: str, instance: str | None) -> str:
    """Return the topic on which one process of a store tells other stores that it is at work."""
    return f"stores/{store}/{instance or ALONE}"


def beats(store: str) -> str:
    """Return the filter of the beats of all processes of one store."""
    return f"stores/{store}/+"


ALONE: Final = "-"
"""Stands for the instance of a store that has none; no instance can have this name."""

BEATS: Final = "stores/+/+"
