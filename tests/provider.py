"""An OpenID provider for tests, over HTTP on loopback: it signs with real keys, and lies where it is told."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.server
import json
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

CLIENT, SECRET = "the gallery", "a secret: of %theirs"  # it has what must be escaped
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """Approves everybody as Ann, at once.

    Attributes:
        issuer: its address.
        claims: said over those that are right; None leaves one out.
        alg: how it signs: RS256, ES256, none, HS256 (by the public key), or `forged` (RS256 by another key).
        metadata: said over what is right of itself.
        public: whether it takes a client without a secret.
    """

    def __init__(self) -> None:
        self.issuer = ""
        self.claims: dict[str, Any] = {}
        self.alg = "RS256"
        self.metadata: dict[str, Any] = {}
        self.public = False
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}

    def authorize(self, query: dict[str, str]) -> str:
        """Return where the browser is sent, as after a login."""
        assert query["response_type"] == "code"
        assert query["client_id"] == CLIENT
        assert query["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self._codes[code] = query
        answer = {"code": code, "state": query["state"], "iss": self.issuer}
        return f"{query['redirect_uri']}?{urlencode(answer)}"

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        query = self._codes.pop(form.get("code", ""), None)
        both = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        known = self.public or both == "the%20gallery:a%20secret%3A%20of%20%25theirs"
        if not known:
            return 401, {"error": "invalid_client"}
        challenge = _text(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            query is None
            or challenge != query["code_challenge"]
            or form["redirect_uri"] != query["redirect_uri"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.token(query["nonce"])}

    def token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer, "aud": CLIENT, "sub": "ann-1", "iat": now, "exp": now + 300, "nonce": nonce,
            "email": "ann@example.org", "email_verified": True, "groups": ["staff"],
        } | self.claims  # fmt: skip
        kid = {"ES256": "the ec key"}.get(self.alg, "the rsa key")
        header = {"alg": "RS256" if self.alg == "forged" else self.alg, "kid": kid}
        said = {name: value for name, value in claims.items() if value is not None}
        text = f"{_text(json.dumps(header).encode())}.{_text(json.dumps(said).encode())}"
        return f"{text}.{_text(self._sign(text.encode()))}"

    def _sign(self, data: bytes) -> bytes:
        if self.alg == "none":
            return b""
        if self.alg == "HS256":
            spki = serialization.PublicFormat.SubjectPublicKeyInfo
            return hmac.digest(
                RSA.public_key().public_bytes(serialization.Encoding.PEM, spki), data, "sha256"
            )
        if self.alg == "ES256":
            r, s = decode_dss_signature(EC.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        key = RSA if self.alg == "RS256" else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def about(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer, "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token", "jwks_uri": f"{self.issuer}/keys",
            "authorization_response_iss_parameter_supported": True,
        } | self.metadata  # fmt: skip


@contextlib.contextmanager
def providing() -> Iterator[Provider]:
    """Run one until the block ends."""
    provider = Provider()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            provider.asked.append(path)
            if path == "/authorize":
                self.send_response(302)
                self.send_header("Location", provider.authorize(_plain(query)))
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif path == "/.well-known/openid-configuration":
                self._say(200, provider.about())
            else:
                self._say(200, _keys())

        def do_POST(self) -> None:
            provider.asked.append(self.path)
            form = _plain(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._say(*provider.redeem(form, self.headers.get("Authorization", "Basic ")))

        def _say(self, status: int, data: dict[str, Any]) -> None:
            body = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def path_of(url: str) -> str:
    """Return what of a URL goes into a request."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def _keys() -> dict[str, Any]:
    n, e = RSA.public_key().public_numbers().n, RSA.public_key().public_numbers().e
    point = EC.public_key().public_numbers()
    return {"keys": [
        {"kty": "EC", "kid": "of a curve to come", "crv": "P-9000", "x": "AA", "y": "AA"}, {"kty": "RSA"}, 7,
        {"kty": "oct", "kid": "a secret that is none", "k": "c2VjcmV0"},
        {"kty": "RSA", "kid": "the rsa key", "use": "sig", "n": _number(n), "e": _number(e)},
        {"kty": "EC", "kid": "the ec key", "crv": "P-256", "x": _number(point.x), "y": _number(point.y)},
    ]}  # fmt: skip


def _number(value: int) -> str:
    size = 32 if value.bit_length() <= 256 and value.bit_length() > 200 else (value.bit_length() + 7) // 8
    return _text(value.to_bytes(size, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _plain(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query).items()}
