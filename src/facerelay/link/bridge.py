"""The same link as a configuration of Mosquitto's own bridge, for an edge broker that is a Mosquitto 2."""

from facerelay import messages, topics
from facerelay.config import Broker
from facerelay.link.greeting import client_id

_HEADER_BYTES = 1_024
_HEAD = """\
# Faces, ledgers and the link state of {site} up, receipts and stores' hellos down. Mosquitto would take other
# topics from the cloud's broker as well: this trusts whoever runs that one; `facerelay forward` does not.
# Written by `facerelay bridge mosquitto`; include it from mosquitto.conf (include_dir), readable by
# mosquitto alone: it may hold a password.

connection facerelay-{site}
address {host}:{port}
remote_clientid {client_id}
bridge_protocol_version mqttv311
"""
# Receipts come at QoS 0. At 1 the bridge would answer each with a few bytes, for which the other side's TCP
# takes up to 40 ms to say that it has them; until then Nagle's algorithm, which Mosquitto 2.0 leaves on for a
# bridge, holds back the next face: 18 ms at the median in place of 1.2. A lost receipt is given again.
_TOPICS = """
# An `in` topic never goes back up, not even with `#` as the topic of faces: Mosquitto does not send a
# message to the bridge it came by, and try_private asks the other side for the same.
topic {faces} out {qos}
topic {ledgers} out {qos}
topic {receipts} in 0
topic {hellos} in 1
try_private true
"""
_STATE = """
# Retained `1` and `0` on {link} of both brokers: the outbox sends again only while it says `1`.
notifications true
notifications_local_only false
notification_topic {link}
"""
_LIMITS = """
# {why}
cleansession {clean}
start_type automatic
restart_timeout 1 10
keepalive_interval 15
bridge_max_packet_size {packet}

# For the broker as a whole; set them in mosquitto.conf, since they hold for every client:
#   message_size_limit {message}
#   set_tcp_nodelay true
#   max_inflight_messages 200
#   max_queued_messages {queued}
# Past max_queued_messages (1,000 by default) Mosquitto drops what it has acknowledged, with one log line.
"""
_WHY = {
    False: 'What one side holds for the other survives a lost connection, as delivery = "broker" promises.',
    True: "Nothing is queued here while the link is down: what must not be lost waits in the outbox.",
}  # fmt: skip


def mosquitto_bridge(
    *, cloud: Broker, site: str, faces: str, qos: int, delivery: str, max_message: int
) -> str:
    """Return the part of a mosquitto.conf that does what the forwarder does.

    Args:
        cloud: The broker in the cloud, and as whom to come to it.
        site: The site's name.
        faces: Topic filter of its faces.
        qos: Quality of service of faces and ledgers.
        delivery: `broker` keeps sessions on both sides; `receipt` and `fast` do not.
        max_message: Bytes of one face, at most.

    Raises:
        ValueError: a setting cannot be written into a line of the file.
    """
    clean = delivery != "broker"
    most = max(max_message, messages.MAX_MESSAGE_BYTES)
    name = client_id(f"{site}-bridge", cloud)
    text = _HEAD.format(site=site, host=cloud.host, port=cloud.port, client_id=name)
    text += "".join(f"{name} {_plain(name, value)}\n" for name, value in _credentials(cloud))
    text += _TOPICS.format(
        faces=_word("the topic of faces", faces),
        qos=qos,
        ledgers=topics.site_ledgers(site),
        receipts=topics.site_receipts(site),
        hellos=topics.HELLOS,
    )
    text += _STATE.format(link=topics.link(site))
    return text + _LIMITS.format(
        why=_WHY[clean],
        clean=str(clean).lower(),
        packet=most + _HEADER_BYTES,
        message=most,
        queued=1_000 if clean else 100_000,
    )


def _credentials(cloud: Broker) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    if cloud.username is not None:
        lines.append(("remote_username", cloud.username))
    if (secret := cloud.secret()) is not None:
        lines.append(("remote_password", secret))
    if not cloud.tls:
        return lines
    if cloud.ca is None:
        lines.append(("bridge_capath", "/etc/ssl/certs"))
    else:
        lines.append(("bridge_cafile", str(cloud.ca.absolute())))
    if cloud.alpn is not None:
        lines.append(("bridge_alpn", cloud.alpn))
    if cloud.cert is not None and cloud.key is not None:
        lines.append(("bridge_certfile", str(cloud.cert.absolute())))
        lines.append(("bridge_keyfile", str(cloud.key.absolute())))
    return lines


def _plain(name: str, value: str) -> str:
    """Refuse what would end its line, or lose blanks at its ends."""
    if value != value.strip() or not value.isprintable():
        raise ValueError(
            f"{name} holds a line break, a control character or outer blanks: Mosquitto cannot read it"
        )
    return value


def _word(name: str, value: str) -> str:
    if not value or " " in value:
        raise ValueError(f"{name} is empty or holds a blank: Mosquitto's configuration cannot name it")
    return _plain(name, value)
