"""`health`: what a worker or a gateway says of itself, as a sentence and an exit status."""

import json
import socket
import time
from argparse import Namespace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from bus_worker.cli.terminal import say
from bus_worker.errors import BadSetting, SetupError, Unavailable

__all__ = ["run"]

LIMIT = 3.0
"""Seconds for the whole of it: who cannot say in time that it is well is not."""
MOST = 65_536
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where others listen
"""Where to knock at who listens at all addresses."""


def run(args: Namespace) -> int:
    """Ask once; 0 and what it says if it is well, else the reasons."""
    place = _place(args.url) if args.url else _worker()
    path = place.path if place.path.strip("/") else "/live" if args.live else "/ready"
    try:
        status, said = _ask(place.hostname or "", place.port or 80, path)
    except OSError as exc:
        why = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise Unavailable(f"{place.netloc}: {why[:1].lower()}{why[1:]}") from exc
    if status != 200:  # noqa: PLR2004 - OK
        raise Unavailable(f"{place.netloc}{path}: {_sentence(status, said)}")
    say(_sentence(status, said))
    return 0


def _place(url: str) -> SplitResult:
    """Where a URL leads.

    Raises:
        SetupError: it is none, or one that we cannot ask.
    """
    try:
        place = urlsplit(url)
        known = place.scheme == "http" and place.hostname and place.port != 0
        (place.hostname or "").encode("idna")  # as it is looked up
    except ValueError:  # a port, a bracket or a name that makes no sense
        known = False
    if not known:
        raise SetupError(f"{url!r} is not an address such as http://127.0.0.1:8000/ready")
    return place


def _worker() -> SplitResult:
    """Where the settings put the worker of this machine.

    Raises:
        BadSetting: nowhere.
    """
    from bus_worker.settings import load_settings  # noqa: PLC0415 - half of the time this takes

    settings = load_settings()
    if not settings.metrics_port:
        raise BadSetting(
            "METRICS_PORT says at which port a worker can be asked, and is not set to one;"
            " set it, or give a URL",
            variable="METRICS_PORT",
        )
    host = EVERYWHERE.get(settings.metrics_host, settings.metrics_host)
    return _place(f"http://{f'[{host}]' if ':' in host else host}:{settings.metrics_port}")


def _ask(host: str, port: int, path: str) -> tuple[int, Any]:
    """Status and JSON of one answer; None for what is not JSON.

    By hand: http.client bounds each read but not the whole, and takes longer to import than this
    takes. HTTP/1.0 ends an answer by hanging up, and needs no more than is here.

    Raises:
        OSError: nobody is there, or is not done in time.
    """
    end = time.monotonic() + LIMIT
    heard = bytearray()
    with socket.create_connection((host, port), timeout=LIMIT) as line:
        line.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        while len(heard) < MOST:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError
            line.settimeout(left)
            if not (piece := line.recv(MOST)):
                break
            heard += piece
    head, _, body = bytes(heard).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


def _sentence(status: int, said: Any) -> str:
    """What a worker (status and reasons) or a gateway (status, or an error) says."""
    match said:
        case {"status": str(state), "reasons": [_, *_] as reasons}:
            return f"{state}: {'; '.join(map(str, reasons))}"
        case {"status": str(state)} | {"error": {"message": str(state)}}:
            return state
    return f"HTTP status {status}" if status else "what answers does not speak HTTP"
