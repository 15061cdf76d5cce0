"""`PageLink`: who may open the server's page: the person who reads the server's terminal, and nobody else."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import RedirectResponse


class PageLink:
    """A link that opens the page once. url: of the server. announce: is told each link; one that was used is renewed.

    Who opens it gets a cookie, without which neither the page nor its files are served, and a key in the fragment of
    the page's address. Requests with both may use all profiles. The cookie alone is not enough: browsers send it to
    every port of the host, so to servers of other users, but no fragment to any.
    """

    def __init__(self, url: str, announce: Callable[[str], None]) -> None:
        self._url, self._announce = url, announce
        self._name = f"dps-local-{url.rpartition(':')[2]}"  # servers at other ports of the host have their own
        self._token, self._cookie, self._key = (secrets.token_urlsafe(32) for _ in range(3))

    def renew(self) -> None:
        self._token = secrets.token_urlsafe(32)
        self._announce(f"{self._url}/?link={self._token}")

    @staticmethod
    def opens(path: str) -> bool:
        """Whether a path is one of the page's, which a cookie guards in place of API keys."""
        return path == "/" or path.startswith("/page/")

    def use(self, token: str) -> RedirectResponse | None:
        """Return what lets a browser in; None where the link is wrong or was used."""
        if not _same(self._token, token):
            return None
        self.renew()
        response = RedirectResponse(f"/#{self._key}", 303)
        response.set_cookie(self._name, self._cookie, httponly=True, samesite="strict")
        return response

    def admits(self, request: Request) -> bool:
        """Whether a request has the cookie."""
        return _same(self._cookie, request.cookies.get(self._name, ""))

    def grants(self, request: Request, key: str) -> bool:
        """Whether a request comes from the page."""
        return _same(self._key, key) and self.admits(request)


def _same(known: str, given: str) -> bool:
    return secrets.compare_digest(known.encode(), given.encode(errors="replace"))
