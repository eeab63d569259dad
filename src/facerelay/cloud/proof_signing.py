"""Who signs proofs of erasure, and whose signatures count: the machines that the site authority enrolled."""

from __future__ import annotations

from facerelay.cloud.proofs import Check, Sign
from facerelay.sections.trust import Trust


def signing(trust: Trust) -> Sign | None:
    """Return what signs with this machine's own key; None where it has none.

    Raises:
        KeyFileError: the key or its certificate cannot be used.
    """
    if trust.cert is None or trust.key is None:
        return None
    from facerelay.signing import Signer  # noqa: PLC0415 - who was not enrolled runs without

    signer = Signer(trust.cert, trust.key)
    return lambda key, line: signer.sign_json("proof", key, line)


def checking(trust: Trust) -> Check | None:
    """Return what checks signatures by the enrolled machines; None where they are not known here."""
    if trust.authority is None or trust.devices is None:
        return None
    from facerelay.devices import Devices  # noqa: PLC0415 - as above
    from facerelay.signing import SignatureError, unsigned, verify_json  # noqa: PLC0415 - as above

    devices = Devices(trust.authority, trust.devices)

    async def check(key: str, data: bytes) -> str:
        try:
            line, key_id, signature = unsigned(data)
            owner = await devices.find(key_id)
            if owner is None:
                return f"signed by a key that is not enrolled here ({key_id})"
            if owner.owner.role not in {"store", "gallery"}:
                return f"signed by {owner.owner}, who erases nothing"
            verify_json(owner, "proof", key, line, signature)
        except SignatureError as error:
            return f"{error}"
        return ""

    return check
