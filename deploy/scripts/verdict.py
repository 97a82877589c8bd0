"""What every check here ends with: an exit status, one line, and a word to Slack when things change."""

import argparse
import contextlib
import enum
import hashlib
import http.client
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "Check", "Level", "NoAnswer", "State", "Verdict", "add_options", "address", "fetch", "parser", "run",
]  # fmt: skip

LARGEST = 8_000_000
"""Bytes of an answer that are read."""


class NoAnswer(Exception):
    """Nothing came back, or nothing that is HTTP; says why."""


class Level(enum.IntEnum):
    """Exit status of a check, as monitoring programs expect it."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3

    @property
    def weight(self) -> int:
        """Which of two wins: a check that cannot tell is worse than well, better than bad."""
        return (0, 2, 3, 1)[self]


@dataclass
class Verdict:
    """What a check found."""

    good: str = ""
    """What to say where nothing is wrong."""
    level: Level = Level.OK
    problems: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    """Performance data: `name=value[unit];warning;critical;min;max`."""

    def add(self, level: Level, problem: str) -> None:
        """One thing that is wrong."""
        self.level = max(self.level, level, key=lambda each: each.weight)
        self.problems.append(problem)

    @property
    def sentence(self) -> str:
        """Its words, on one line and without the bar that begins the figures."""
        words = "; ".join(self.problems) or self.good
        return " ".join(words.replace("|", "/").split())

    @property
    def line(self) -> str:
        """What is printed."""
        figures = f" | {' '.join(self.figures)}" if self.figures else ""
        return f"{self.level.name}: {self.sentence}{figures}"


State = dict[str, Any]
"""What one run leaves for the next."""
Check = Callable[[argparse.Namespace, State], Verdict]


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser whose refusals are UNKNOWN; a wrong option must not look like CRITICAL."""

    class _Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            print(f"UNKNOWN: {message} (see --help)")  # noqa: T201 - where monitoring reads
            self.exit(Level.UNKNOWN)

    return _Parser(
        description=description,
        epilog="exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (the check itself cannot tell)",
    )


def add_options(to: argparse.ArgumentParser) -> None:
    """What all checks take."""
    to.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="for all of it (default 10)"
    )
    to.add_argument(
        "--key-file", type=Path, metavar="FILE",
        help="holds the API key, alone; else the variable API_KEY has it, if one is needed",
    )  # fmt: skip
    to.add_argument(
        "--state-file", type=Path, metavar="FILE",
        help="what one run leaves for the next (default: one for each program and address in"
        " $XDG_STATE_HOME/bus-worker or ~/.local/state/bus-worker)",
    )  # fmt: skip
    to.add_argument(
        "--slack-url-file", type=Path, metavar="FILE",
        help="holds the address of a Slack webhook, alone; else SLACK_WEBHOOK_URL has it. Slack is"
        " told when the status changes, and of nothing else",
    )  # fmt: skip
    to.add_argument(
        "--remind", type=float, metavar="MINUTES", help="tell Slack again while it is not OK"
    )
    to.add_argument("--name", default="", help="what Slack calls the system (default: the address)")


def address(text: str) -> str:
    """An argument that is an HTTP address; `host:port` will do.

    Raises:
        ArgumentTypeError: it is none.
    """
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text!r} is no http address")
    if parts.username is not None:
        raise argparse.ArgumentTypeError("no secret belongs into an address; see --key-file")
    return text


def fetch(url: str, args: argparse.Namespace, within: float) -> tuple[int, bytes]:
    """Status and body of an answer that comes `within` so many seconds.

    No redirect is followed and no proxy asked: the key is for this address alone.

    Raises:
        NoAnswer: none came.
    """
    headers = {"Accept": "application/json, text/plain;q=0.5", "User-Agent": "bus-worker-check"}
    key = _secret(args.key_file, "API_KEY")
    if key:
        headers["X-API-Key"] = key
    asked = urllib.request.Request(url, headers=headers)  # noqa: S310 - see _opener
    try:
        with _at_most(within), _opener().open(asked) as answer:
            status, body = int(answer.status), answer.read(LARGEST)
            whole = not answer.length
    except urllib.error.URLError as error:
        raise NoAnswer(f"{url} does not answer: {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(f"{url} breaks off: {error!r}") from error
    if not whole:
        raise NoAnswer(f"{url} breaks off after {len(body)} bytes")
    return status, body


def run(check: Check, args: argparse.Namespace, *, subject: str) -> int:
    """Judge, tell Slack if need be, print; the exit status.

    Args:
        subject: what is looked at, as one word.
    """
    path = args.state_file or _place(Path(sys.argv[0]).name, subject)
    before = _read(path)
    state = dict(before)
    verdict = _judge(check, args, state)
    _tell(verdict, args, state, args.name or subject)
    try:
        if state != before:
            _write(path, state)
    except OSError as error:
        verdict.add(Level.UNKNOWN, f"{path} cannot be written: {error.strerror or error}")
    print(verdict.line)  # noqa: T201 - its purpose
    return verdict.level


def _judge(check: Check, args: argparse.Namespace, state: State) -> Verdict:
    try:
        return check(args, state)
    except NoAnswer as error:
        return Verdict(level=Level.CRITICAL, problems=[str(error)])
    except Exception as error:  # noqa: BLE001 - Python's own exit status for it would be WARNING
        return Verdict(level=Level.UNKNOWN, problems=[str(error) or type(error).__name__])


def _tell(verdict: Verdict, args: argparse.Namespace, state: State, name: str) -> None:
    """Tell Slack of a change. What it was not told it is told by the next run."""
    try:
        hook = _secret(args.slack_url_file, "SLACK_WEBHOOK_URL")
    except OSError as error:
        verdict.add(Level.UNKNOWN, f"no address of Slack: {error}")
        return
    now, before = time.time(), str(state.get("told", Level.OK.name))
    again = args.remind is not None and now - state.get("told_at", 0) >= args.remind * 60
    if not hook or (before == verdict.level.name and not (again and verdict.level != Level.OK)):
        return
    icon = (":white_check_mark:", ":warning:", ":rotating_light:", ":grey_question:")[verdict.level]
    words = _escaped(f"*{name}*: {verdict.level.name} (was {before}): {verdict.sentence}")
    try:
        with _at_most(args.timeout):
            _post(hook, {"text": f"{icon} {words}"})
    except (NoAnswer, OSError, ValueError, http.client.HTTPException) as error:
        # The address is a secret: the error's own words may hold it.
        verdict.add(Level.OK, f"Slack was not told: {type(error).__name__}")
        return
    state.update(told=verdict.level.name, told_at=now)


def _post(hook: str, message: dict[str, str]) -> None:
    body, kind = json.dumps(message).encode(), {"Content-Type": "application/json"}
    asked = urllib.request.Request(hook, body, kind)  # noqa: S310 - see _opener
    # Slack is outside: where the way there is a proxy's, the environment names it.
    with _opener(urllib.request.ProxyHandler()).open(asked) as answer:
        if answer.status != 200:  # noqa: PLR2004 - Slack's only good answer
            raise ValueError(f"status {answer.status}")


def _opener(*more: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Speaks HTTP and nothing else: no files, no redirects; every status is an answer."""
    opener = urllib.request.OpenerDirector()
    for handler in (*more, urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise NoAnswer after so long: a socket's own timeout begins anew with every byte."""

    def ring(*_: object) -> None:
        raise NoAnswer(f"no answer in {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _secret(path: Path | None, variable: str) -> str:
    return (path.read_text() if path else os.environ.get(variable, "")).strip()


def _escaped(text: str) -> str:
    """As Slack wants it: what others said must not become a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _place(program: str, subject: str) -> Path:
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    word = hashlib.sha256(subject.encode()).hexdigest()[:12]
    return home / "bus-worker" / f"{program}-{word}.json"


def _read(path: Path) -> State:
    """What the last run left; nothing where that is not to be had."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(json.dumps(state))
    new.replace(path)
