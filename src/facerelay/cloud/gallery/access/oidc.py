"""OpenID Connect: the authorization code flow with PKCE, and who the ID token says somebody is.

Signatures and claims are looked at by joserfc; the flow itself is two requests.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key

from facerelay.cloud.gallery.access.fetch import FetchError, fetch
from facerelay.cloud.gallery.access.identity import Identity, OidcError
from facerelay.cloud.gallery.access.ticket import Ticket
from facerelay.sections.base import address, is_open

ALGORITHMS: Final = ("RS256", "PS256", "ES256")
"""Those that are believed: by public keys alone."""

_KEYS: Final = {"RSA", "EC"}
_METADATA_S: Final = 3600.0
_AGAIN_S: Final = 30.0
_LEEWAY_S: Final = 60
_MAX_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class _Metadata:
    authorize: str
    token: str
    keys: str
    basic: bool
    says_issuer: bool


class Provider:
    """An identity provider.

    Args:
        issuer: its address, as it writes it itself.
        client_id: the name under which it knows us.
        secret: returns what we share with it at this moment; None: nothing.
        scope: what it is asked for.
    """

    def __init__(
        self, *, issuer: str, client_id: str, secret: Callable[[], str | None], scope: str = "openid email"
    ) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._secret = secret
        self._scope = scope
        self._metadata: _Metadata | None = None
        self._metadata_at = self._failed_at = self._keys_at = -float("inf")
        self._keys: KeySet | None = None

    async def way(self, ticket: Ticket, *, back: str) -> str:
        """Return the address to which the browser goes to log in.

        Raises:
            OidcError: the provider cannot be asked.
        """
        metadata = await self._discovered()
        asked = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": back, "scope": self._scope,
            "state": ticket.state, "nonce": ticket.nonce, "code_challenge": ticket.challenge,
            "code_challenge_method": "S256",
        }  # fmt: skip
        return f"{metadata.authorize}{'&' if '?' in metadata.authorize else '?'}{urlencode(asked)}"

    async def identify(self, answer: Mapping[str, str], ticket: Ticket, *, back: str) -> Identity:
        """Return who has come back.

        Args:
            answer: the query with which the browser came back.
            ticket: with which it set out.
            back: the address to which it came.

        Raises:
            OidcError: it is not believed; it says why.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(errors="replace"), ticket.state.encode()):
            raise OidcError("the state is another browser's, or old")
        metadata = await self._discovered()
        issuer = answer.get("iss")
        if issuer != self._issuer and (metadata.says_issuer or issuer is not None):
            raise OidcError("the answer comes from another issuer")
        if not (code := answer.get("code")):
            raise OidcError(f"the provider says {_word(answer.get('error', 'nothing'))}")
        token = await self._redeemed(metadata, code, ticket, back)
        return _identity(await self._verified(metadata, token, ticket.nonce))

    async def _discovered(self) -> _Metadata:
        """Return what the provider says of itself, an hour old at most."""
        now = time.monotonic()
        if self._metadata is not None and now - self._metadata_at < _METADATA_S:
            return self._metadata
        if now - self._failed_at < _AGAIN_S and self._metadata is None:
            raise OidcError("the provider could not be asked a moment ago")
        try:
            said = await self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            self._metadata, self._metadata_at = _metadata(said, self._issuer), time.monotonic()
        except OidcError:
            self._failed_at = time.monotonic()
            raise
        return self._metadata

    async def _redeemed(self, metadata: _Metadata, code: str, ticket: Ticket, back: str) -> str:
        """Return the ID token for a code."""
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": back,
            "client_id": self._client_id, "code_verifier": ticket.verifier,
        }  # fmt: skip
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            secret = self._secret()
        except OSError as error:
            raise OidcError(f"gallery.oidc_client_secret_file: {error.strerror}") from error
        if secret and metadata.basic:
            both = f"{quote(self._client_id, safe='')}:{quote(secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(both.encode()).decode()}"
        elif secret:
            form["client_secret"] = secret
        answer = await self._fetch(metadata.token, form=urlencode(form).encode(), headers=headers)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise OidcError("the provider gives no ID token: the scope lacks openid")
        return token

    async def _verified(self, metadata: _Metadata, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token that is the issuer's, for us, now, and for this login."""
        try:
            claims = jwt.decode(token, await self._key_set(metadata), algorithms=ALGORITHMS).claims
        except (JoseError, ValueError, TypeError, KeyError):
            # Keys change: look anew, now and then.
            if time.monotonic() - self._keys_at < _AGAIN_S:
                raise OidcError("the ID token's signature is not the issuer's") from None
            try:
                keys = await self._key_set(metadata, anew=True)
                claims = jwt.decode(token, keys, algorithms=ALGORITHMS).claims
            except (JoseError, ValueError, TypeError, KeyError) as error:
                raise OidcError(f"the ID token's signature is not the issuer's: {error}") from error
        registry = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S, iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._client_id}, exp={"essential": True},
            iat={"essential": True}, sub={"essential": True}, nonce={"essential": True, "value": nonce},
        )  # fmt: skip
        try:
            registry.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise OidcError(f"the ID token is not for this login: {error}") from error
        if not isinstance(claims["nonce"], str) or claims.get("azp", self._client_id) != self._client_id:
            raise OidcError("the ID token was made for another client")
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and "azp" not in claims:
            raise OidcError("the ID token is for several clients, and does not say which asked")
        return claims

    async def _key_set(self, metadata: _Metadata, *, anew: bool = False) -> KeySet:
        if self._keys is None or anew or time.monotonic() - self._keys_at > _METADATA_S:
            said = (await self._fetch(metadata.keys)).get("keys")
            self._keys = KeySet(list(_public(said if isinstance(said, list) else [])))
            self._keys_at = time.monotonic()
        return self._keys

    async def _fetch(
        self, url: str, *, form: bytes | None = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            return await fetch(url, form=form, headers=headers)
        except FetchError as error:
            raise OidcError(str(error)) from error


def _metadata(said: Mapping[str, Any], issuer: str) -> _Metadata:
    if said.get("issuer") != issuer:
        raise OidcError(
            f"the provider calls itself {_word(said.get('issuer'))}: set gallery.oidc_issuer to that"
        )
    methods = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return _Metadata(
        authorize=_endpoint(said, "authorization_endpoint"),
        token=_endpoint(said, "token_endpoint"),
        keys=_endpoint(said, "jwks_uri"),
        basic=isinstance(methods, list) and "client_secret_basic" in methods,
        says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(said: Mapping[str, Any], name: str) -> str:
    url = said.get(name)
    if not isinstance(url, str) or address(url, "http", "https") is None or is_open(url):
        raise OidcError(f"the provider's {name} is {_word(url)}, which is no https:// address")
    return url


def _identity(claims: Mapping[str, Any]) -> Identity:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_TEXT:
        raise OidcError("the ID token names nobody")
    email = claims.get("email")
    verified = claims.get("email_verified") is True and isinstance(email, str) and len(email) <= _MAX_TEXT
    groups = [each for name in ("groups", "roles") if isinstance(each := claims.get(name), list)]
    return Identity(
        subject=subject,
        email=email if verified else None,
        groups=frozenset(name for each in groups for name in each if isinstance(name, str)),
    )


def _public(keys: Iterable[object]) -> Iterator[Key]:
    """Yield the public keys for signatures; one of a kind that we do not know is passed over."""
    for key in keys:
        if isinstance(key, dict) and key.get("kty") in _KEYS and key.get("use", "sig") == "sig":
            with suppress(JoseError, ValueError, TypeError, KeyError):
                yield import_key({name: value for name, value in key.items() if name != "d"})


def _word(text: object) -> str:
    """Return what a stranger wrote, fit for a log."""
    return ascii(text)[:120]
