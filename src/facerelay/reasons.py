"""Why a face was dropped or refused: the codes of the books, in words, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from facerelay.topics import shown

Column = Literal["dropped", "refused", "unsent"]
"""Which count a reason explains; `unsent`: what was never captured."""


class Reason(NamedTuple):
    """A reason in words.

    Attributes:
        column: of the books.
        words: what happened, to be read behind a number of faces.
        todo: what to do, as a sentence; empty where nothing is to be done.
    """

    column: Column
    words: str
    todo: str = ""


_SOFTWARE: Final = "See that edge and cloud run the same version; the pictures are kept at the edge."

KNOWN: Final[Mapping[str, Reason]] = MappingProxyType({
    "evicted": Reason(
        "dropped", "gave way in a full outbox (the least valuable go first)",
        "See why nothing went up (link, brokers, store), or raise outbox.max_bytes.",
    ),
    "expired": Reason(
        "dropped", "waited longer than outbox.expire_hours",
        "See why it waited, or raise outbox.expire_hours.",
    ),
    "damaged": Reason(
        "dropped", "damaged on the edge's disk",
        "Check that disk: `facerelay doctor` at the edge.",
    ),
    "unanswered": Reason(
        "refused", "sent again and again without a receipt, while others were answered",
        "See the store's log; the pictures are kept at the edge.",
    ),
    "conflict": Reason(
        "refused", "whose key another object in the bucket has",
        "See who else writes into this bucket; the pictures are kept at the edge.",
    ),
    "bad-seal": Reason(
        "refused", "sealed by a key that is not its site's, or was revoked",
        "See the store's log: it names the key; the pictures are kept at the edge.",
    ),
    "wrong-topic": Reason(
        "refused", "on a topic of another site or camera",
        "Set topics.faces alike at the edge and in the cloud.",
    ),
    "too-large": Reason(
        "refused", "larger than the store takes", "Set limits alike at the edge and in the cloud."
    ),
    "too-many-pixels": Reason(
        "refused", "of more pixels than the store takes", "Set limits alike at the edge and in the cloud."
    ),
    "bucket": Reason(
        "refused", "that the bucket does not take at all",
        "See the store's log: it names the bucket's answer; the pictures are kept at the edge.",
    ),
    "truncated": Reason("refused", "that came cut off", "See that no program on the way changes messages."),
    "malformed": Reason("refused", "that the store cannot read", _SOFTWARE),
    "version": Reason(
        "refused", "of a later version than the store reads",
        "Upgrade the store: they go again by themselves, and are kept at the edge until then.",
    ),
    "exif-too-large": Reason("refused", "whose EXIF is longer than the store reads", _SOFTWARE),
    "no-pixels": Reason("refused", "without width or height", _SOFTWARE),
    "still": Reason("unsent", "frames in which nothing had changed"),
    "late": Reason("unsent", "frames that came faster than they were looked at"),
    "paused": Reason("unsent", "frames of a camera whose switch was off", "Turn its switch on again."),
    "thinned": Reason("unsent", "pictures made smaller for a thin line"),
    "gate-small": Reason("unsent", "detections too small to be a usable face"),
    "gate-cut-off": Reason("unsent", "detections cut off at the picture's edge"),
    "gate-averted": Reason("unsent", "detections of averted heads"),
    "gate-tilted": Reason("unsent", "detections too far tilted"),
    "gate-smeared": Reason("unsent", "detections without a sharp picture"),
    "gate-outside": Reason("unsent", "detections outside the camera's zones"),
    "gate-fleeting": Reason("unsent", "visits too short to be sure of"),
    "gate-returned": Reason("unsent", "visits that went on after a pause"),
    "gate-screen": Reason("unsent", "faces on posters and screens"),
})  # fmt: skip
"""Every reason that this version gives."""


def explain(code: str) -> Reason:
    """Return a reason in words; one that a later version gives is shown as it is."""
    if code in KNOWN:
        return KNOWN[code]
    if code.startswith("posted-"):
        return Reason("unsent", f"pictures that came by MQTT and were passed over ({shown(code[7:])})")
    if code.startswith("gate-"):
        return Reason("unsent", f"detections of no use ({shown(code[5:])})")
    return Reason("refused", f"for another reason ({shown(code)})", "See the store's log.")
