"""The page at `/` for people: its files as they lie here, and who is meant to see it."""

from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bus_worker.settings import Settings

__all__ = ["ADDRESSES", "HEADERS", "files", "front", "prefers_page"]

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOLDER = Path(__file__).parent
FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.suffix in KINDS}
ADDRESSES = frozenset(f"/page/{name}" for name in FILES)
LIMITS = {
    "bytes": "max_file_size",
    "seconds": "max_audio_duration",
    "job-bytes": "job_max_file_size",
    "job-seconds": "job_max_audio_duration",
}
"""What the page is told, and the settings it is told of."""
INDEX = (FOLDER / "index.html").read_text(encoding="utf-8")

HEADERS = {
    "Cache-Control": "no-cache",  # asked for again each time, answered 304 while it is the same
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src blob:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def prefers_page(request: Request) -> bool:
    """Whether the one who asks would rather read HTML than JSON, as a browser says it would."""
    wanted = ",".join(request.headers.getlist("accept")) or "*/*"
    return _quality(wanted, "text/html") > _quality(wanted, "application/json")


def front(request: Request) -> Response:
    """The page itself; it is told the limits, so that it can say them before anything is sent."""
    page = _with_limits(request.app.state.settings)
    return _answer(request, page.encode(), "text/html")


def _with_limits(settings: Settings) -> str:
    """The page with the limits that the service has, where the file has the defaults."""
    defaults, page = Settings(), INDEX
    for name, setting in LIMITS.items():
        line = 'data-max-{}="{:g}"' if name.endswith("seconds") else 'data-max-{}="{}"'
        default, value = getattr(defaults, setting), getattr(settings, setting)
        page = page.replace(line.format(name, default), line.format(name, value))
    return page


def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404)
    return _answer(request, FILES[name], KINDS[Path(name).suffix])


files = Route("/page/{name}", _file, include_in_schema=False)
"""What the page is made of."""


def _answer(request: Request, body: bytes, kind: str) -> Response:
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}
    known = request.headers.get("if-none-match", "").replace("W/", "").split(",")
    if tag in map(str.strip, known):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=kind, headers=headers)


def _quality(accept: str, media_type: str) -> float:
    """How much a media type is wanted: what names it most closely decides (RFC 9110, 12.5.1)."""
    closeness = {media_type: 3, f"{media_type.partition('/')[0]}/*": 2, "*/*": 1}
    best, quality = 0, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if closeness.get(name, 0) > best:
            best, quality = closeness[name], _weight(parameters)
    return quality


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
