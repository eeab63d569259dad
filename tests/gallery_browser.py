"""What a browser does at the gallery, without one: cookies, forms, headers that say where they come from."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gallery_parts import Answer, ask

TOKEN = "a token of enough characters"  # noqa: S105 - of these tests
FORM = "application/x-www-form-urlencoded"


class Browser:
    """Keeps cookies as a browser does.

    Args:
        port: of the gallery.
        tls: trusts it; None: plain HTTP.
        host: by which it is asked for.
        headers: that a proxy before it adds.
    """

    def __init__(
        self,
        port: int,
        tls: ssl.SSLContext | None = None,
        host: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._port = port
        self._tls = tls
        self._more = headers or {}
        self.host = host or f"127.0.0.1:{port}"
        secure = tls is not None or self._more.get("X-Forwarded-Proto") == "https"
        self.origin = f"{'https' if secure else 'http'}://{self.host}"
        self.cookies: dict[str, str] = {}

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._ask("GET", path, None, headers)

    async def json(self, path: str, status: int = 200) -> Any:  # noqa: ANN401 - whatever JSON can hold
        got, _, body = await self.get(path)
        assert got == status, body
        return json.loads(body)

    async def send(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """Send a form of a page of the gallery's own."""
        own = {"Origin": self.origin, "Sec_Fetch_Site": "same-origin", "Content_Type": FORM} | headers
        return await self._ask("POST", path, urlencode(fields).encode(), own)

    async def post(self, path: str, data: object = None, **headers: str) -> Answer:
        """Ask as the pages' scripts do."""
        own = {"Origin": self.origin, "Sec_Fetch_Site": "same-origin", "X_Facerelay": "1"} | headers
        return await self._ask("POST", path, json.dumps(data).encode(), own)

    async def log_in(self, token: str = TOKEN, target: str = "/") -> Answer:
        return await self.send("/login", {"token": token, "next": target})

    async def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        cookie = {"Cookie": "; ".join(f"{k}={v}" for k, v in self.cookies.items())} if self.cookies else {}
        sent = {"Host": self.host} | self._more | cookie | headers
        answer = await asyncio.to_thread(ask, self._port, path, sent, method, body, tls=self._tls)
        for line in answer[1].get("set-cookie", "").splitlines():
            for name, morsel in SimpleCookie(line).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer


def certificate(folder: Path, name: str = "gallery") -> tuple[Path, Path]:
    """Write a certificate for loopback and faces.example.org, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    names = [x509.DNSName("faces.example.org"), x509.DNSName("localhost"),
             x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(pem, pkcs8, plain))
    return paths
