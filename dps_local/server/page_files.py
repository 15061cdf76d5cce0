"""The server's own page: static files, a strict content policy, and the link that opens it."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dps_local.drawing.page import stylesheet
from dps_local.server.page_link import PageLink

FILES = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"  # no text ever becomes HTML
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
CLOSED = "open this page by the link that `dps-local serve` printed last: each link works once"


def page_routes(link: PageLink) -> list[Route]:
    files = {path.name: path.read_bytes() for path in FILES.iterdir()} | {"drawing.css": stylesheet().encode()}

    def file(name: str) -> Response:
        if name not in files:
            return PlainTextResponse("there is no such file\n", 404)
        return Response(files[name], media_type=TYPES[Path(name).suffix])

    def closed() -> Response:
        return PlainTextResponse(f"{CLOSED}\n", 403)

    async def index(request: Request) -> Response:
        token = request.query_params.get("link")
        response: Response | None = link.use(token) if token else None
        if response is None:
            response = closed() if not link.admits(request) else RedirectResponse("/") if token else file("index.html")
        response.headers.update(HEADERS)
        return response

    async def part(request: Request) -> Response:
        response = file(request.path_params["name"]) if link.admits(request) else closed()
        response.headers.update(HEADERS)
        return response

    return [Route("/", index), Route("/page/{name}", part)]
