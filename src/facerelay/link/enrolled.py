"""The enrolled machines as users of a NATS server: who may come, and what each may say and hear."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from facerelay.link.subjects import subject
from facerelay.permissions import Permissions, permissions
from facerelay.sections import Trust
from facerelay.signing import Authority, KeyFileError, PublicKey, SignatureError, read_certificate
from facerelay.topics import FaceTopic

_log = logging.getLogger(__name__)
# What MQTT at QoS 1 and 2 is made of: the server subscribes to both on a client's behalf, and refuses a
# client's own filter that begins with $MQTT.
_QOS_1: Final = "$MQTT.sub.>"
_QOS_2: Final = "$MQTT.deliver.pubrel.>"


def users(trust: Trust, faces: FaceTopic, *, stream: str | None = None) -> list[dict[str, Any]]:
    """Return a user for each enrolled machine; a file that is no certificate of one is told, and left out.

    NATS knows a user by the name that the certificate gives its own key. So a certificate counts while it
    lies in the folder, and another one of the same machine does not stand in for it.

    Args:
        trust: whose certificates count.
        faces: where faces travel.
        stream: from which stores may pull by the NATS protocol; None: nobody may use that.

    Raises:
        KeyFileError: the authority or the folder cannot be read.
    """
    if trust.authority is None or trust.devices is None:
        return []
    try:
        authority = Authority(trust.authority)
        files = sorted(path for path in trust.devices.iterdir() if path.suffix == ".pem")
    except KeyFileError as error:
        raise KeyFileError(f"trust.authority: {error}") from None
    except OSError as error:
        raise KeyFileError(f"trust.devices: {trust.devices}: {error.strerror}") from None
    known = [key for path in files if (key := _admitted(authority, path)) is not None]
    return [_user(key, permissions(key.owner, faces), stream) for key in known]


def pulling(stream: str) -> list[str]:
    """Return the subjects that a store of whatever group needs to take faces from one stream.

    It may make the stream and cannot change, empty or delete it.
    """
    api = "$JS.API"
    return [
        f"{api}.STREAM.INFO.{stream}",
        f"{api}.STREAM.CREATE.{stream}",
        f"{api}.CONSUMER.INFO.{stream}.*",
        f"{api}.CONSUMER.CREATE.{stream}.>",
        f"{api}.CONSUMER.DURABLE.CREATE.{stream}.*",
        f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
        f"$JS.ACK.{stream}.>",
    ]


def _admitted(authority: Authority, path: Path) -> PublicKey | None:
    try:
        certificate = read_certificate(path)
        key = authority.admit(certificate)
    except KeyFileError as error:
        _log.warning("%s: it is left out", error)
    except SignatureError as error:
        _log.warning("%s: %s: it is left out", path, error)
    else:
        if key.uri in _uris(certificate):
            return key
        _log.warning("%s: it does not name its key: enrol the machine anew; it is left out", path)
    return None


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)


def _user(key: PublicKey, may: Permissions, stream: str | None) -> dict[str, Any]:
    publish = [subject(each) for each in may.publish]
    subscribe = [subject(each) for each in may.subscribe]
    # In MQTT `a/#` is `a` as well.
    subscribe += [each.removesuffix(".>") for each in subscribe if each.endswith(".>")]
    if subscribe:
        subscribe += [_QOS_1, _QOS_2]
    # Without a password: it must not be a way in on NATS's own port, where that asks for no certificate.
    ways = ["MQTT"]
    if stream is not None and key.owner.role == "store" and not key.owner.revoked:
        ways.append("STANDARD")
        publish += pulling(stream)
        subscribe.append(f"_INBOX.{key.owner.name}.>")
    return {
        "user": key.uri,
        "allowed_connection_types": ways,
        "permissions": {"publish": _allow(publish), "subscribe": _allow(subscribe)},
    }


def _allow(subjects: list[str]) -> dict[str, list[str]]:
    """Return rules that allow these; an empty list of what is allowed would mean everything."""
    return {"allow": subjects} if subjects else {"deny": [">"]}
