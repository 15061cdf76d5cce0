"""`Guard`: what comes before every route: who asks, from which page, with which key."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dps_local.errors import RequestError
from dps_local.server.answer_json import error_json
from dps_local.server.api_keys import ApiKeys
from dps_local.server.page_link import PageLink

LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
OPEN = ("/health",)  # without a key


@dataclass(frozen=True)
class Access:
    """hosts: names that the server answers to, None for all: a web page cannot open a socket file. origins: of pages
    that may ask, beside the server's own. keys: None asks for none. link: to the server's page, None has no page."""

    hosts: frozenset[str] | None = LOOPBACK
    origins: frozenset[str] = frozenset()
    keys: ApiKeys | None = None
    link: PageLink | None = None


class Guard:
    """Refuses requests of other web pages (DNS rebinding, forged posts) and those without a key.

    scope["profiles"] becomes the profiles that the key may use, None for all.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            request = Request(scope)
            self._check_page(request)
            scope["profiles"] = self._profiles(request)
        except RequestError as exc:
            status, content = error_json(exc)
            await JSONResponse(content, status)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _check_page(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if self.access.hosts is not None and _name(host) not in self.access.hosts:
            raise RequestError(403, "this server does not answer to that Host", code="host_not_allowed")
        origin = request.headers.get("origin")
        if origin in self.access.origins:
            return
        own = f"{request.url.scheme}://{host}"
        if origin is not None and origin != own:
            raise RequestError(403, "web pages of other origins may not ask this server", code="origin_not_allowed")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise RequestError(403, "web pages of other sites may not ask this server", code="origin_not_allowed")

    def _profiles(self, request: Request) -> frozenset[str] | None:
        link = self.access.link
        if self.access.keys is None or request.url.path in OPEN or (link and link.opens(request.url.path)):
            return None
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        if link and link.grants(request, key):
            return None
        try:
            return self.access.keys.profiles(key)
        except KeyError:
            raise RequestError(401, "give an API key of this server", code="invalid_api_key") from None


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
