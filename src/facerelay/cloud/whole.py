"""What an S3 bucket does as a whole: does it keep versions, does it lock objects, what does it expire?

The library that reads and writes objects does not ask this. A few requests, each signed here; answers are
looked at as text, for nothing in them is worth an XML parser.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, urlsplit

from facerelay import config
from facerelay.cloud.contract import BucketError, Fault
from facerelay.cloud.signature import Signer
from facerelay.topics import shown

_TIMEOUT_S: Final = 15.0
_MAX_ANSWER: Final = 1_000_000
_OK, _DENIED, _MISSING = 200, 403, 404
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_STATUS: Final = re.compile(r"<Status>(Enabled|Suspended)</Status>")
_RULE: Final = re.compile(r"<Rule>.*?</Rule>", re.DOTALL)
_ID: Final = re.compile(r"<ID>([^<]*)</ID>")
_HEAD: Final = '<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


class UnaskableError(Exception):
    """The bucket cannot be asked about itself; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Keeps:
    """What a bucket keeps of objects that were deleted.

    Attributes:
        versions: `Enabled`, `Suspended` (old ones stay), or empty.
        locked: whether objects can be locked against deletion.
    """

    versions: str
    locked: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """Objects below a prefix go some days after they arrived."""

    id: str
    prefix: str
    days: int

    def as_json(self) -> dict[str, object]:
        """Return it as the S3 API and its tools have it."""
        return {
            "ID": self.id, "Status": "Enabled", "Filter": {"Prefix": self.prefix},
            "Expiration": {"Days": self.days}, "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
        }  # fmt: skip

    def as_xml(self) -> str:
        """Return it as it is sent."""
        return (
            f"<Rule><ID>{self.id}</ID><Filter><Prefix>{self.prefix}</Prefix></Filter><Status>Enabled</Status>"
            f"<Expiration><Days>{self.days}</Days></Expiration><NoncurrentVersionExpiration>"
            "<NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>"
        )


class Whole:
    """An S3 bucket as a whole.

    Args:
        endpoint: `http://` or `https://`, host and port.
        bucket: its name.
        signer: signs requests.
        token: of temporary keys; None where they are not.
    """

    def __init__(self, *, endpoint: str, bucket: str, signer: Signer, token: str | None = None) -> None:
        self._endpoint = urlsplit(endpoint)
        self._path = f"/{quote(bucket, safe='-_.~')}"
        self._signer = signer
        self._token = token

    @classmethod
    def of(cls, settings: config.Bucket) -> Self:
        """Return the bucket that the settings name, by their keys or the environment's.

        Raises:
            UnaskableError: it is none of S3, or no key is known here.
        """
        parts = urlsplit(settings.url)
        if parts.scheme != "s3":
            raise UnaskableError(f"{settings.url} is not on S3: see to it at its provider")
        access, secret = settings.access_key, settings.secret()
        token = None
        if not access or not secret:
            access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
            token = os.environ.get("AWS_SESSION_TOKEN")
        if not access or not secret:
            raise UnaskableError(
                "no key is known here to ask with: set bucket.access_key, or AWS_ACCESS_KEY_ID in the"
                " environment"
            )
        environment = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        region = settings.region or environment or "us-east-1"
        endpoint = settings.endpoint or f"https://s3.{region}.amazonaws.com"
        signer = Signer(access_key=access, secret_key=secret, region=region)
        return cls(endpoint=endpoint, bucket=parts.netloc, signer=signer, token=token)

    async def keeps(self) -> Keeps:
        """Ask what it keeps of deleted objects.

        Raises:
            BucketError: it does not say.
        """
        _, text = await self._ask("GET", "versioning", fine=(_OK,))
        found = _STATUS.search(text)
        status, text = await self._ask("GET", "object-lock", fine=(_OK, _MISSING))
        locked = status == _OK and "<ObjectLockEnabled>Enabled<" in text
        return Keeps(found[1] if found else "", locked)

    async def lifecycle(self) -> dict[str, str]:
        """Return its rules by their names, each as the bucket has it.

        Raises:
            BucketError: it does not say, or not in a way that is understood here.
        """
        status, text = await self._ask("GET", "lifecycle", fine=(_OK, _MISSING))
        if status == _MISSING:
            return {}
        rules = _RULE.findall(text)
        if "<!" in text or "Rule" in _RULE.sub("", text) or len(text) >= _MAX_ANSWER:
            raise BucketError(
                "", "its lifecycle rules cannot be read here: set them at the provider", "refused"
            )
        named = {
            found[1] if (found := _ID.search(rule)) else f"unnamed {n}": rule for n, rule in enumerate(rules)
        }
        if len(named) != len(rules):
            raise BucketError("", "two lifecycle rules have one name: set them at the provider", "refused")
        return named

    async def set_lifecycle(self, rules: dict[str, str]) -> None:
        """Put these rules in the place of all that are there.

        Raises:
            BucketError: it does not take them.
        """
        if not rules:
            await self._ask("DELETE", "lifecycle", fine=(_OK, 204))
            return
        body = f"{_HEAD}{''.join(rules.values())}</LifecycleConfiguration>".encode()
        await self._ask("PUT", "lifecycle", fine=(_OK,), body=body)

    async def _ask(
        self, method: str, about: str, *, fine: tuple[int, ...], body: bytes = b""
    ) -> tuple[int, str]:
        try:
            status, text = await asyncio.to_thread(self._request, method, f"{about}=", body)
        except (OSError, http.client.HTTPException) as error:
            raise BucketError("", f"{error or 'no answer'}: check bucket.endpoint") from error
        code = _CODE.search(text)
        if status in fine and not (code and code[1] == "NoSuchBucket"):
            return status, text
        said = f"the bucket says {code[1] if code else f'HTTP status {status}'} when asked for its {about}"
        fault: Fault = "denied" if status == _DENIED else "refused"
        if code and code[1] == "NoSuchBucket":
            fault = "no-bucket"
        raise BucketError("", shown(said), fault)

    def _request(
        self, method: str, query: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        sha256 = hashlib.sha256(body).hexdigest()
        more = dict(headers or {})
        if self._token:
            more["x-amz-security-token"] = self._token
        if body:  # S3 demands it of rules; it is no secret's hash
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            more["content-md5"] = base64.b64encode(md5).decode()
        signed = self._signer.fields(
            method, self._endpoint.netloc, self._path, query, sha256=sha256, headers=more
        )
        connection = self._connect()
        try:
            connection.request(method, f"{self._path}?{query}" if query else self._path, body, signed)
            answer = connection.getresponse()
            return answer.status, answer.read(_MAX_ANSWER).decode(errors="replace")
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._endpoint.hostname or "", self._endpoint.port
        if self._endpoint.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
