"""Who may publish and read what at the cloud's broker, by the name in a certificate.

One table for all brokers: each writes it in its own way. What is not here is refused, `#` to all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from facerelay import topics
from facerelay.signing import Owner
from facerelay.topics import FaceTopic

_ANY_RECEIPTS: Final = "receipts/+/+"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Topic filters that one machine may use."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


NONE: Final = Permissions((), ())


def permissions(owner: Owner, faces: FaceTopic) -> Permissions:
    """Return what a machine may do.

    A site publishes its own faces, books and link state, and reads its own receipts and what stores say of
    themselves. A store reads what sites publish, and what other stores tell each other; it alone publishes
    receipts. A gallery reads receipts, which tell it that there is something new.

    Args:
        owner: by the name in its certificate.
        faces: where faces travel; one that does not name `{site}` cannot be kept apart by site.
    """
    if owner.revoked:
        return NONE
    name = owner.name
    if owner.role == "site":
        return Permissions(
            publish=(_any(faces.publish(name, "+")), topics.site_ledgers(name), topics.link(name)),
            subscribe=(topics.site_receipts(name), topics.HELLOS),
        )
    if owner.role == "store":
        return Permissions(
            publish=(_ANY_RECEIPTS, topics.hello(name), topics.beats(name)),
            subscribe=(faces.filter, topics.LEDGERS, topics.BEATS),
        )
    if owner.role == "gallery":
        return Permissions(publish=(), subscribe=(_ANY_RECEIPTS,))
    return NONE


def apart(faces: FaceTopic) -> bool:
    """Whether a topic of faces keeps sites apart: two of them have no topic in common."""
    return not topics.overlap(_any(faces.publish("a", "+")), _any(faces.publish("b", "+")))


def _any(topic: str) -> str:
    """Return a filter whose wildcards fill their levels, as MQTT has it: `door-+` is `+`."""
    return re.sub(r"[^/]*\+[^/]*", "+", topic)
