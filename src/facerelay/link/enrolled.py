"""The enrolled machines as users of a NATS server: who may come, and what each may say and hear."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from facerelay.permissions import Permissions, permissions
from facerelay.sections import Trust
from facerelay.signing import Authority, KeyFileError, PublicKey, SignatureError, read_certificate
from facerelay.topics import FaceTopic

_log = logging.getLogger(__name__)
# What MQTT at QoS 1 and 2 is made of: the server subscribes to both on a client's behalf, and refuses a
# client's own filter that begins with $MQTT.
_QOS_1: Final = "$MQTT.sub.>"
_QOS_2: Final = "$MQTT.deliver.pubrel.>"


def users(trust: Trust, faces: FaceTopic) -> list[dict[str, Any]]:
    """Return a user for each enrolled machine; a file that is no certificate of one is told, and left out.

    NATS knows a user by the name that the certificate gives its own key. So a certificate counts while it
    lies in the folder, and another one of the same machine does not stand in for it.

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
    return [_user(key, permissions(key.owner, faces)) for key in known]


def subject(topic_filter: str) -> str:
    """Return a topic filter as NATS has it: `/` is `.`, `+` is `*`, `#` is `>`, a dot in a name is `//`."""
    levels = [level.replace(".", "//") for level in topic_filter.split("/")]
    return ".".join({"": "/", "+": "*", "#": ">"}.get(level, level) for level in levels)


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


def _user(key: PublicKey, may: Permissions) -> dict[str, Any]:
    publish = [subject(each) for each in may.publish]
    subscribe = [subject(each) for each in may.subscribe]
    # In MQTT `a/#` is `a` as well.
    subscribe += [each.removesuffix(".>") for each in subscribe if each.endswith(".>")]
    if subscribe:
        subscribe += [_QOS_1, _QOS_2]
    return {
        "user": key.uri,
        # Without a password: it must not be a way in on NATS's own port.
        "allowed_connection_types": ["MQTT"],
        "permissions": {"publish": _allow(publish), "subscribe": _allow(subscribe)},
    }


def _allow(subjects: list[str]) -> dict[str, list[str]]:
    """Return rules that allow these; an empty list of what is allowed would mean everything."""
    return {"allow": subjects} if subjects else {"deny": [">"]}
