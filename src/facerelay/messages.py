"""What travels besides faces: receipts, hellos and beats of stores; ledgers and link health of edges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError

from facerelay.erasures import Erasures, Mark
from facerelay.face import SLUG, FaceId, Hex, Slug
from facerelay.topics import shown

MAX_MESSAGE_BYTES: Final = 262_144
"""What a receipt batch, ledger or hello may be, at most."""

VERSION: Final = 1
"""Of receipts, ledgers and hellos; one that tells another is not read."""

Reason = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
Outcome = Annotated[str, StringConstraints(pattern=r"^(stored|held|erased|expired|refused:[a-z0-9-]{1,40})$")]


class WireError(ValueError):
    """A receipt batch, ledger or hello that cannot be read."""


class _Wire(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    def to_bytes(self) -> bytes:
        """Return the message's payload."""
        return self.model_dump_json(exclude_none=self.terse).encode()

    terse: ClassVar[bool] = False
    most_bytes: ClassVar[int] = MAX_MESSAGE_BYTES

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Read a payload.

        Raises:
            WireError: too large, or not such a message; the first fault is named.
        """
        if len(payload) > cls.most_bytes:
            raise WireError(f"{len(payload)} bytes are more than the limit of {cls.most_bytes}")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            if first["loc"] == ("v",):
                raise WireError(
                    f"{cls.__name__}: of another version than {VERSION}, which this program reads: upgrade it"
                ) from error
            where = shown(".".join(map(_plain, first["loc"])))
            raise WireError(f"{cls.__name__}: {where}: {first['msg']}") from error


def _plain(part: int | str) -> str:
    """Return a part of where a fault lies as a log line may show it: a field, no text of a message."""
    return "*" if isinstance(part, str) and not part.isidentifier() else str(part)


class Receipt(_Wire):
    """What became of one face, by the word of a store.

    `stored`: its bytes lie in the bucket. `held`: in an open shard, which frees the window, not the
    outbox. `refused:<reason>`, `erased`, `expired`: it will not be stored; `duplicate`: it already was.
    """

    id: FaceId
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    outcome: Outcome
    duplicate: bool = False


class Receipts(_Wire):
    """A batch of receipts for one outbox; or what was erased, which it is to delete as well.

    `instance` and `run` come where faces are `held`: which process of the store has them in memory.
    """

    terse: ClassVar[bool] = True
    v: Literal[1] = 1
    store: Slug
    instance: Slug | None = None
    run: Hex | None = None
    receipts: Annotated[tuple[Receipt, ...], Field(max_length=1000), FailFast()]
    erasures: Erasures | None = None


MOST_LOST: Final = 64
"""Processes that fell, named in one hello."""


class Hello(_Wire):
    """A store announces itself: `start` is new at each connection, so an edge can tell news from old.

    One whose receipts are signed brings the certificate of its key along, in DER and base64. `reads` is the
    latest version of faces that it takes: an edge sends it again what an older one refused. `run` is of the
    process, whose `instance` of the store has its place alone; `lost` are the `run`s of others that fell.
    What a process held is sent again when another is in its place, or when it is lost.
    """

    terse: ClassVar[bool] = True
    v: Literal[1] = 1
    store: Slug
    start: Hex
    reads: Annotated[int, Field(ge=1)] = 1
    instance: Slug | None = None
    run: Hex | None = None
    lost: Annotated[tuple[Hex, ...], Field(max_length=MOST_LOST), FailFast()] = ()
    certificate: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+=*$", max_length=4096)] | None = (
        None
    )


class Beat(_Wire):
    """One store's word to the others that it is at work.

    Attributes:
        run: of the process, new at each start.
        keeps: a digest of where it keeps faces, and for how long: stores share work where it is the same.
        hello: `start` of the hello of its name that it knows to be the last.
        holds: whether faces that edges believe to be held would go with it.
        ends: it takes leave in order: nothing was lost.
    """

    terse: ClassVar[bool] = True
    most_bytes: ClassVar[int] = 1024
    v: Literal[1] = 1
    run: Hex
    keeps: Hex
    hello: Hex | None = None
    holds: bool = False
    ends: bool = False


MOST_COUNT: Final = 2**53
Count = Annotated[int, Field(ge=0, le=MOST_COUNT)]
Milliseconds = Annotated[float, Field(ge=0, le=MOST_COUNT, allow_inf_nan=False)]


class Latency(_Wire):
    """Camera to receipt, in milliseconds; null until there is one."""

    p50: Milliseconds | None = None
    p99: Milliseconds | None = None


MOST_REASONS: Final = 64


class Account(_Wire):
    """One camera's books: `captured = stored (or sent) + waiting + dropped + refused + erased`.

    `frames` are all that the camera gave: `inspected` by the detector, or `skipped`. `gaps` counts how
    often the camera was gone, `dark_s` for how many seconds in all; `dark_since` says since when it is gone
    now, by the edge's clock, or null.
    """

    frames: Count = 0
    inspected: Count = 0
    skipped: Count = 0
    detections: Count = 0
    captured: Count = 0
    stored: Count = 0
    sent: Count = 0
    waiting: Count = 0
    dropped: Count = 0
    refused: Count = 0
    erased: Count = 0
    duplicates: Count = 0
    bytes: Count = 0
    gaps: Count = 0
    dark_s: Count = 0
    dark_since: AwareDatetime | None = None
    latency_ms: Latency = Latency()
    reasons: Annotated[dict[Reason, Count], Field(max_length=MOST_REASONS)] = {}

    @property
    def closes(self) -> bool:
        """Whether each captured face is in exactly one other column."""
        answered = self.stored + self.sent + self.waiting + self.dropped + self.refused + self.erased
        return self.captured == answered


CameraName = Annotated[str, StringConstraints(pattern=f"^{SLUG}/{SLUG}$")]


Figure = Annotated[float, Field(ge=0, le=MOST_COUNT, allow_inf_nan=False)]


class LinkHealth(_Wire):
    """How an edge's link does, by what its outbox sees of it.

    Attributes:
        time: when this was so, by the edge's clock.
        oldest_s: age in seconds of the oldest face that waits for its answer; null where none waits.
        silent_s: seconds since the last receipt, while faces are on their way and none is answered; or null.
        round_trip_s: of a receipt, smoothed; null until there was one.
        up_bytes_s: bytes per second handed to the broker, over the last ten seconds.
        in_flight: bytes that were sent and have no receipt.
        held: faces that a store holds, which are stored soon; they wait, and do not count as the oldest.
        window: bytes that may be.
        broker_dropped: messages that the edge's broker dropped since it began; null where it does not say.
        cuts: how often the link was found to be down since capture began.
        resets: how often a link that was up and stuck was made anew since then.
        brief: whether it is at work for a moment alone (`facerelay send`), and its silence no trouble.
        ignored: what came as a store's word since capture began, and was no word of a store of its authority.
        strange: whether signed receipts wait here for the hello of their store.
        erasures: what it was told of erasures, and did; null where it does not know of such.
    """

    time: AwareDatetime
    oldest_s: Figure | None = None
    silent_s: Figure | None = None
    round_trip_s: Figure | None = None
    up_bytes_s: Figure = 0
    in_flight: Count = 0
    held: Count = 0
    window: Count = 0
    broker_dropped: Count | None = None
    cuts: Count = 0
    resets: Count = 0
    brief: bool = False
    ignored: Count = 0
    strange: bool = False
    erasures: Mark | None = None


MOST_PARTS: Final = 1024
"""Messages that carry the books of one outbox, at most."""


class Ledger(_Wire):
    """The books of one outbox, as they travel and as they are printed; `lost` comes from an audit alone.

    Books of many cameras travel as `parts` messages: number `part` on `ledger/<site>/<outbox>/<part>`, the
    first without a number. Only parts that tell the first one's number of `parts` are of the same books:
    any other is from before, and does not count. `link` comes with the first.
    """

    most_bytes: ClassVar[int] = 65_536

    v: Literal[1] = 1
    outbox: Hex
    cameras: dict[CameraName, Account]
    lost: Count | None = None
    part: Annotated[int, Field(ge=0, lt=MOST_PARTS)] = 0
    parts: Annotated[int, Field(ge=1, le=MOST_PARTS)] = 1
    link: LinkHealth | None = None

    @property
    def closes(self) -> bool:
        """Whether every camera's books close."""
        return all(account.closes for account in self.cameras.values())


def batches(store: str, receipts: Iterable[Receipt], *, most: int = 500) -> list[Receipts]:
    """Pack receipts into messages of at most `most` each."""
    pending = list(receipts)
    return [
        Receipts(store=store, receipts=tuple(pending[at : at + most])) for at in range(0, len(pending), most)
    ]
