"""The login page: a form and a link, no script."""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import Final
from urllib.parse import quote, urlsplit

from starlette.responses import HTMLResponse, Response

from facerelay import web

PAGES: Final = frozenset({"/", "/face", "/health"})
"""Where a login may lead to."""

_MAX_TARGET: Final = 1_500
# A form sent under `no-referrer` says that its origin is null, and would be taken for a stranger's.
_HEADERS: Final = web.PLAIN | {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}
_BY_FORM: Final = """<form method="post" action="/login">
<input type="hidden" name="next" value="{target}">
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus{described}>
<button class="main" type="submit">Log in</button>
</form>"""
_BY_OIDC: Final = """<p><a class="button" href="/login/oidc?next={target}">Log in at {issuer}</a></p>"""
_FAULT: Final = '<p id="fault" class="bad" role="alert">{words}</p>'


class LoginPage:
    """Makes the page.

    Args:
        token: whether one can log in by a token.
        issuer: the identity provider's address; None where there is none.
    """

    def __init__(self, *, token: bool, issuer: str | None) -> None:
        self._form = Template(resources.files(__package__).joinpath("login.html").read_text())
        self._token = token
        self._issuer = escape(urlsplit(issuer).hostname or "the provider") if issuer else None

    def answer(
        self, target: str, fault: str = "", *, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        """Return the page; `target` is where a login leads to, `fault` what went wrong, in words of ours."""
        described = ' aria-describedby="fault" aria-invalid="true"' if fault else ""
        parts = {
            "fault": _FAULT.format(words=escape(fault)) if fault else "",
            "token": _BY_FORM.format(target=escape(target), described=described) if self._token else "",
            "oidc": _BY_OIDC.format(target=quote(target, safe=""), issuer=self._issuer)
            if self._issuer
            else "",
        }
        return HTMLResponse(self._form.substitute(parts), status, _HEADERS | (headers or {}))


def safe_target(asked: str) -> str:
    """Return where a login may lead to: a page of ours, whatever is asked for."""
    if len(asked) > _MAX_TARGET or not asked.isascii() or not asked.isprintable() or "\\" in asked:
        return "/"
    path, _, _ = asked.partition("?")
    return asked if path in PAGES and "#" not in asked else "/"
