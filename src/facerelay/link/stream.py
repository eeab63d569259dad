"""The stream on which faces wait for the stores of a group, and the consumer by which these take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from facerelay.link.subjects import SLACK_BYTES, covers
from facerelay.sections import JetStream

ACK_WAIT_S: Final = 30.0
_MAX_ACK_PENDING: Final = 10_000
_IN_CLUSTER: Final = 3
_ALONE: Final = 10_074
_ANOTHER_GROUP: Final = (
    "stream {name} belongs to another group than {group!r}: set store.group or jetstream.stream"
)
_NO_ROOM: Final = "the server has no room for jetstream.max_bytes = {settings.max_bytes}"
# By the number that NATS has for what is wrong.
_FORMS: Final = {
    _ALONE: "jetstream.replicas = {settings.replicas} needs a cluster, and this server stands alone",
    10_023: _NO_ROOM,
    10_047: _NO_ROOM,
    10_058: "stream {name} was made meanwhile with other settings",
    10_065: "another stream than {name} has {subject} already: name it in jetstream.stream",
    10_099: _ANOTHER_GROUP,
    10_100: _ANOTHER_GROUP,
}


class StreamError(Exception):
    """The stream cannot be used; the message says what to do."""


async def prepare(
    js: JetStreamContext, settings: JetStream, *, subject: str, group: str, max_message: int
) -> None:
    """See that the stream and the group's consumer are there; whoever comes first makes them.

    Args:
        js: a connection's.
        settings: of the stream.
        subject: where faces travel, as NATS has it.
        group: names the consumer.
        max_message: bytes of one face, at most: the stream takes no larger one.

    Raises:
        StreamError: they cannot be had.
        nats.errors.Error: the connection failed.
    """
    try:
        await _stream(js, settings, subject, max_message)
        await _consumer(js, settings.stream, subject, group)
    except APIError as error:
        raise StreamError(_plainly(error, settings, group, subject)) from None


async def waiting(js: JetStreamContext, settings: JetStream, group: str) -> int:
    """Return how many faces wait for the group, with those that were handed out and not acknowledged.

    Raises:
        StreamError: stream or consumer are not there.
        nats.errors.Error: the connection failed.
    """
    try:
        info = await js.consumer_info(settings.stream, group)
    except APIError as error:
        raise StreamError(_plainly(error, settings, group, "")) from None
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


async def state(js: JetStreamContext, settings: JetStream, group: str) -> str:
    """Return how the stream does, in words.

    Raises:
        StreamError: it is not well.
        nats.errors.Error: the connection failed.
    """
    try:
        info = await js.stream_info(settings.stream)
    except NotFoundError:
        return f"stream {settings.stream} is not there yet: the first store makes it"
    except APIError as error:
        raise StreamError(_plainly(error, settings, group, "")) from None
    copies = info.config.num_replicas or 1
    if info.cluster is not None:
        if not info.cluster.leader:
            raise StreamError(f"stream {settings.stream} has no leader: are most of its nodes up?")
        behind = [each.name for each in info.cluster.replicas or () if each.offline or not each.current]
        if behind:
            raise StreamError(f"stream {settings.stream}: behind or away: {', '.join(map(str, behind))}")
    said = f"stream {settings.stream} is kept by {copies} node{'s' if copies > 1 else ''}"
    try:
        return f"{said}; {await waiting(js, settings, group)} faces wait for group {group}"
    except StreamError:
        return f"{said}; no store of group {group} has come yet"


async def _stream(js: JetStreamContext, settings: JetStream, subject: str, max_message: int) -> None:
    try:
        found = await js.stream_info(settings.stream)
    except NotFoundError:
        pass
    else:
        taken = found.config.subjects or []
        if not any(covers(each, subject) for each in taken):  # the server would let us wait for ever
            raise StreamError(
                f"stream {settings.stream} is of {', '.join(taken) or 'nothing'}, not of {subject}:"
                " see topics.faces, or name another in jetstream.stream"
            )
        return
    for replicas in [settings.replicas] if settings.replicas else [_IN_CLUSTER, 1]:
        config = StreamConfig(
            name=settings.stream,
            subjects=[subject],
            # What a store has taken is gone from here: a face that is erased must not lie on.
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            # The oldest goes, and its outbox sends it again; the newest would be refused without a word.
            discard=DiscardPolicy.OLD,
            max_bytes=settings.max_bytes,
            max_age=settings.max_age_s,
            max_msg_size=max_message + SLACK_BYTES,
            num_replicas=replicas,
            # Nobody publishes here with an id: the window would be looked after for nothing.
            duplicate_window=1,
        )
        try:
            await js.add_stream(config)
        except APIError as error:
            if error.err_code == _ALONE and settings.replicas is None and replicas > 1:
                continue
            raise
        return


async def _consumer(js: JetStreamContext, stream: str, subject: str, group: str) -> None:
    try:
        found = await js.consumer_info(stream, group)
    except NotFoundError:
        pass
    else:
        if found.config.filter_subject != subject:
            raise StreamError(
                f"group {group} takes {found.config.filter_subject} from stream {stream}, not {subject}:"
                " see topics.faces and store.group"
            )
        return
    config = ConsumerConfig(
        durable_name=group,
        filter_subject=subject,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=_MAX_ACK_PENDING,
    )
    await js.add_consumer(stream, config)


def _plainly(error: APIError, settings: JetStream, group: str, subject: str) -> str:
    """Return what an error of JetStream means, and what to do."""
    form = _FORMS.get(error.err_code or 0, "JetStream: {description} ({error.code}/{error.err_code})")
    return form.format(
        name=settings.stream, settings=settings, group=group, subject=subject, error=error,
        description=error.description or "no word",
    )  # fmt: skip


def status(headers: Mapping[str, str] | None) -> tuple[str, str]:
    """Return code and words of a message that is no face but the server's own word; empty of a face."""
    found: Mapping[str, Any] = headers or {}
    return str(found.get("Status", "")), str(found.get("Description", ""))
