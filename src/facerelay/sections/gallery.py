"""The gallery: where its pages are, and who may see them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator, model_validator

from facerelay.sections.base import Port, Section, address, is_loopback, is_open

LEAST_TOKEN: Final = 24
"""Characters that a token has, at least."""

_EVERYWHERE: Final = {"0.0.0.0", "::"}  # noqa: S104 - named to be told from one address
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_PERSON: Final = re.compile(r"(?:subject|group):\S.*|[^\s@:]+@[^\s@:]+")
_HOW: Final = (
    "gallery.cert and gallery.key (or gallery.proxy), and a login: gallery.token_file or gallery.oidc_issuer"
)

Person = Annotated[str, Field(min_length=1, max_length=300)]


class Gallery(Section):
    """The gallery: the faces of the bucket on web pages."""

    host: str = Field(
        "127.0.0.1", title="Host", description="Address to listen on; beyond loopback with TLS and a login."
    )
    port: Port = Field(8080, title="Port", description="0 takes a free one.")
    hosts: Annotated[tuple[str, ...], Field(max_length=16)] = Field(
        (),
        title="Names",
        description="Names and addresses, without port, at which browsers find it beyond loopback.",
    )
    cert: Path | None = Field(
        None, title="Certificate", description="PEM file with the page's certificate and its chain."
    )
    key: Path | None = Field(None, title="Key", description="PEM file with its key, without a password.")
    proxy: Annotated[tuple[str, ...], Field(max_length=16)] = Field(
        (),
        title="Proxy",
        description="Addresses of a TLS proxy before it: X-Forwarded-For and -Proto count from there alone.",
    )
    token: SecretStr | None = Field(
        None, title="Token", description="Whoever has it may see. Better in token_file."
    )
    token_file: Path | None = Field(
        None, title="Token file", description="A file with the token alone: `openssl rand -hex 32` makes one."
    )
    oidc_issuer: str | None = Field(
        None, title="OIDC issuer", description="Who says who somebody is, such as https://login.example.org."
    )
    oidc_client_id: str | None = Field(
        None, title="OIDC client", description="The name under which the issuer knows this page."
    )
    oidc_client_secret_file: Path | None = Field(
        None, title="OIDC client secret", description="A file with it alone; unset: a public client."
    )
    oidc_scope: Annotated[str, Field(pattern=r"^openid( [\x21-\x7e]+)*$", max_length=300)] = Field(
        "openid email", title="OIDC scope", description="What the issuer is asked for; groups may need more."
    )
    oidc_allowed: Annotated[tuple[Person, ...], Field(max_length=10_000)] = Field(
        (),
        title="Who may see",
        description="Addresses (ann@example.org, verified by the issuer), subject:ID, group:NAME.",
    )
    oidc_may_erase: Annotated[tuple[Person, ...], Field(max_length=10_000)] | None = Field(
        None, title="Who may erase", description="Of those, in the same form; unset: all of them."
    )
    session_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        12, title="Session", description="Hours after which one has to log in again."
    )
    access_log: Path | None = Field(
        None, title="Access log", description="A file that gets a line for each view of a face; unset: none."
    )
    erase: bool = Field(default=True, title="Erase", description="Whether faces can be erased on the page.")
    listen: bool = Field(
        default=False,
        title="Listen",
        description="Learn of new faces by the receipts at this side's broker, in place of looking.",
    )
    broker_cert: Path | None = Field(
        None,
        title="Certificate for the broker",
        description="PEM file: as whom the page comes to the broker to listen; unset: broker.cert.",
    )
    broker_key: Path | None = Field(
        None, title="Key for the broker", description="PEM file with the key of that certificate."
    )
    look_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        0.6,
        title="Look",
        description="Seconds between looks for new faces while a page is open: a listing a camera each.",
    )
    cache: Path = Field(
        Path("gallery-cache"), title="Cache", description="The folder of thumbnails, for this user alone."
    )
    cache_bytes: Annotated[int, Field(ge=1_000_000)] = Field(
        500_000_000, title="Cache budget", description="Of thumbnails on disk; past it the oldest go."
    )
    allow_insecure: bool = Field(
        default=False,
        title="Allow insecure",
        description="Listen beyond loopback: in a container, whose port is then published on loopback alone.",
    )

    @field_validator("hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not _NAME.fullmatch(each) and not _is_address(each):
                raise ValueError("names in lower case or addresses, without port, such as faces.example.org")
        return value

    @field_validator("proxy")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            try:
                network = ipaddress.ip_network(each)
            except ValueError:
                raise ValueError("an address or a network, such as 127.0.0.1 or 172.18.0.0/16") from None
            if network.prefixlen == 0:
                raise ValueError("the whole internet is no proxy: name its address")
        return value

    @field_validator("token")
    @classmethod
    def _long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < LEAST_TOKEN:
            raise ValueError(f"at least {LEAST_TOKEN} characters: `openssl rand -hex 32` makes a good one")
        return value

    @field_validator("oidc_allowed", "oidc_may_erase")
    @classmethod
    def _persons(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for each in value or ():
            if not _PERSON.fullmatch(each):
                raise ValueError("write ann@example.org, subject:ID or group:NAME")
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _issuer(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = address(value, "http", "https")
        if parts is None or parts.query or parts.fragment or "@" in parts.netloc or is_open(value):
            raise ValueError("an https:// address, as the issuer writes itself: no query, no password")
        return value

    @model_validator(mode="after")
    def _logins(self) -> Gallery:
        if self.token is not None and self.token_file is not None:
            raise ValueError("set token or token_file, not both")
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError("oidc_issuer and oidc_client_id go together")
        if self.oidc_issuer is not None and not self.oidc_allowed:
            raise ValueError("oidc_allowed is empty: say who may see, or nobody may")
        if self.oidc_issuer is None and (self.oidc_allowed or self.oidc_may_erase is not None):
            raise ValueError("oidc_allowed and oidc_may_erase need oidc_issuer")
        return self

    @model_validator(mode="after")
    def _beyond_loopback(self) -> Gallery:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if (self.broker_cert is None) != (self.broker_key is None):
            raise ValueError("broker_cert and broker_key go together")
        named = not all(map(is_loopback, self.hosts))
        beyond = not is_loopback(self.host) and not self.allow_insecure
        if beyond and not named and self.host in _EVERYWHERE and self.has_login:
            raise ValueError(
                "gallery.hosts: say at which name or address browsers on other machines find the page"
            )
        if beyond or named:
            where = "gallery.host" if beyond else "gallery.hosts"
            if not (self.cert or self.proxy) or not self.has_login:
                raise ValueError(
                    f"{where}: beyond loopback the page needs {_HOW}"
                    " (or stay on loopback, and use an SSH tunnel)"
                )
        return self

    @property
    def has_login(self) -> bool:
        """Whether one has to log in."""
        return bool(self.token or self.token_file or self.oidc_issuer)

    @property
    def names(self) -> tuple[str, ...]:
        """What the page may be called in an address, beside loopback's names."""
        own = () if self.host in _EVERYWHERE else (self.host.lower(),)
        return (*self.hosts, *own)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
