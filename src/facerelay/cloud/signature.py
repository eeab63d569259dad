"""AWS Signature Version 4 of a request whose path, hash and headers are known.

Source: AWS, "Authenticating Requests: Using the Authorization Header", S3 API reference, in one chunk.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Signer:
    """Signs with one key pair, which does not change.

    Args:
        access_key: its name.
        secret_key: never sent.
        region: of the bucket; servers that have none take `us-east-1`.
    """

    def __init__(self, *, access_key: str, secret_key: str, region: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._region = region
        self._second = -1
        self._stamp = self._scope = ""
        self._key = b""

    def put(
        self,
        host: str,
        path: str,
        size: int,
        sha256: str,
        headers: Mapping[str, str],
        *,
        now: float | None = None,
    ) -> bytes:
        """Return the head of a PUT.

        Args:
            host: as the Host header has it.
            path: percent-encoded.
            size: of the body in bytes.
            sha256: of the body, in hex digits.
            headers: more of them, by names in lower case; values without line breaks and outer blanks.
            now: Unix time; the clock's without it.
        """
        fields = {"host": host, "x-amz-content-sha256": sha256, **headers}
        lines, proof = self._sign("PUT", path, "", fields, now)
        sent = lines.replace("\n", "\r\n")
        return (
            f"PUT {path} HTTP/1.1\r\n{sent}content-length:{size}\r\nauthorization:{proof}\r\n\r\n"
        ).encode()

    def fields(
        self,
        method: str,
        host: str,
        path: str,
        query: str,
        *,
        sha256: str,
        headers: Mapping[str, str],
        now: float | None = None,
    ) -> dict[str, str]:
        """Return all headers of a request, by names in lower case.

        Args:
            method: GET, PUT, …
            host: as the Host header has it.
            path: percent-encoded.
            query: encoded, its names sorted, each with a `=`.
            sha256: of the body, in hex digits.
            headers: more of them, by names in lower case; values without line breaks and outer blanks.
            now: Unix time; the clock's without it.
        """
        fields = {"host": host, "x-amz-content-sha256": sha256, **headers}
        _, proof = self._sign(method, path, query, fields, now)
        return fields | {"authorization": proof}

    def _sign(
        self, method: str, path: str, query: str, fields: dict[str, str], now: float | None
    ) -> tuple[str, str]:
        """Add the time to the headers; return them as lines, and the signature's own."""
        self._set_time(int(time.time() if now is None else now))
        fields["x-amz-date"] = self._stamp
        names = sorted(fields)
        signed = ";".join(names)
        lines = "".join([f"{name}:{fields[name]}\n" for name in names])
        request = f"{method}\n{path}\n{query}\n{lines}\n{signed}\n{fields['x-amz-content-sha256']}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{self._stamp}\n{self._scope}\n{digest}"
        proof = hmac.digest(self._key, text.encode(), "sha256").hex()
        credential = f"{_ALGORITHM} Credential={self._access_key}/{self._scope}"
        return lines, f"{credential}, SignedHeaders={signed}, Signature={proof}"

    def _set_time(self, second: int) -> None:
        """Make what depends on the time anew: the stamp each second, the day's key each day."""
        if second == self._second:
            return
        self._second = second
        self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = f"{self._stamp[:8]}/{self._region}/s3/aws4_request"
        if scope != self._scope:
            self._scope = scope
            self._key = f"AWS4{self._secret_key}".encode()
            for part in scope.split("/"):
                self._key = hmac.digest(self._key, part.encode(), "sha256")
