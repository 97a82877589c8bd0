"""Commands and their arguments."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bus_worker import __version__
from bus_worker.cli.terminal import complain
from bus_worker.formats import FORMATS

__all__ = ["build_parser"]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as every other failure here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see `{self.prog} --help`")
        self.exit(2)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `command` says which module of this package runs."""
    parser = _Parser(
        prog="bus-worker",
        description="Speech to text on a message bus.",
        epilog="Settings come from the environment and from .env in this folder; `bus-worker config` shows them.",
    )
    parser.add_argument("--version", action="version", version=f"bus-worker {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True, parser_class=_Parser
    )
    _up(commands)
    _command(commands, "run", "Run one worker until it is told to stop.")
    _setup(commands)
    _transcribe(commands)
    _jobs(commands)
    _models(commands)
    _cache(commands)
    top = _command(
        commands,
        "top",
        "Show every worker: its slots, how many requests a second, how long they take.",
    )
    top.add_argument("--once", action="store_true", help="print one table and end")
    top.add_argument(
        "--every", type=_seconds, default=1.0, metavar="SECONDS", help="how often to look (1)"
    )
    _health(commands)
    plugins = _command(
        commands, "plugins", "List the stages, their options and where they come from."
    )
    plugins.add_argument("--json", action="store_true", help="as JSON, for programs")
    _command(
        commands, "config", "Print the effective settings as lines for a .env, secrets masked."
    )
    _command(
        commands,
        "doctor",
        "Check bus, workers, model, libraries and settings, and say how to mend what is wrong.",
    )
    _bench(commands)
    return parser


def _command(commands: Any, name: str, sentence: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=sentence, description=sentence)
    return made


def _up(commands: Any) -> None:
    up = _command(
        commands,
        "up",
        "Start a bus, workers and the gateway on this machine, and keep them running until Ctrl-C.",
    )
    up.add_argument(
        "--bus-host", metavar="ADDRESS",
        help="let other machines reach the bus at this address of ours (0.0.0.0: at all of them),"
        " with a token (default: this machine only)",
    )  # fmt: skip
    up.add_argument(
        "--workers", metavar="N", type=_positive, help="worker processes (default: API_WORKERS, 2)"
    )


def _setup(commands: Any) -> None:
    setup = _command(
        commands,
        "setup",
        "Fetch the model and make the bus's streams; run it before the first worker.",
    )
    setup.add_argument(
        "--bus-only", action="store_true",
        help="leave the model to the machines that workers run on; its name is all that is needed",
    )  # fmt: skip
    setup.add_argument(
        "--replicas", metavar="N", type=int, choices=(1, 3, 5),
        help="keep each stream on so many servers of a cluster: 1, 3 or 5 (default: as it is, or 1)",
    )  # fmt: skip


def _transcribe(commands: Any) -> None:
    transcribe = _command(commands, "transcribe", "Print what is said in audio files.")
    add = transcribe.add_argument
    add("files", metavar="FILE", nargs="+", help="an audio file; - reads standard input")
    add("--format", choices=FORMATS, default="text", help="how to write it (default: %(default)s)")
    add(
        "--output",
        metavar="DIR",
        help="write each transcript to a file in this folder (default: print them)",
    )
    _options(add)
    add(
        "--model",
        metavar="NAME",
        help="which model is to hear it (default: DEFAULT_MODEL, else the bus's own)",
    )
    add(
        "--timeout", metavar="SECONDS", type=_seconds,
        help="longest wait for one file (default: REQUEST_TIMEOUT, 60)",
    )  # fmt: skip
    add("--local", action="store_true", help="in this process, without a bus")


def _options(add: Any) -> None:
    """How audio is to be heard."""
    add(
        "--language", metavar="XX", type=_language,
        help="language spoken, such as en (default: detected)",
    )  # fmt: skip
    add(
        "--task", choices=("transcribe", "translate"), default="transcribe",
        help="translate writes English whatever is spoken (default: %(default)s)",
    )  # fmt: skip
    add("--prompt", metavar="TEXT", help="what came before, for style and spelling")
    add("--words", action="store_true", help="time each word (seen in json)")


def _jobs(commands: Any) -> None:
    jobs = _command(commands, "jobs", "Hand recordings in to be heard though you go away.")
    actions = jobs.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=_Parser
    )
    _submit(actions)
    _job(actions, "status", "Tell where a job stands.").add_argument(
        "--json", action="store_true", help="as JSON, for programs"
    )
    for name, sentence in (
        ("watch", "Follow a job to its end and print its transcript; Ctrl-C leaves it running."),
        ("result", "Print the transcript of a job that is done."),
    ):
        _job(actions, name, sentence).add_argument(
            "--format", choices=FORMATS, default="text", help="how to write it (default: text)"
        )
    _job(actions, "cancel", "Stop a job.")
    _job(actions, "erase", "Forget a job that has ended: audio, text and status.")
    dead = _command(actions, "dead", "List, hand in again or drop the jobs that failed.")
    deeds = dead.add_subparsers(dest="deed", metavar="ACTION", parser_class=_Parser)
    _command(deeds, "list", "List the jobs that failed, and why; kept for a week.")
    _job(deeds, "show", "Tell what is known of a job that failed.")
    _job(deeds, "resubmit", "Hand a job that failed in again, and print its new id.")
    _job(deeds, "drop", "Erase a job that failed, and its audio.")


def _job(commands: Any, name: str, sentence: str) -> argparse.ArgumentParser:
    made = _command(commands, name, sentence)
    made.add_argument("id", metavar="ID", help="the job's, as `jobs submit` printed it")
    return made


def _submit(actions: Any) -> None:
    submit = _command(actions, "submit", "Hand audio files in as jobs, and print their ids.")
    add = submit.add_argument
    add("files", metavar="FILE", nargs="+", help="an audio file; - reads standard input")
    _options(add)
    add(
        "--model", metavar="NAME",
        help="which model is to hear it (default: DEFAULT_MODEL, else the only one)",
    )  # fmt: skip
    add(
        "--priority", choices=("high", "low"), default="low",
        help="high goes before low (default: %(default)s)",
    )  # fmt: skip
    add("--webhook", metavar="URL", help="an https address that is told of the end")
    add("--reply-to", metavar="SUBJECT", help="a subject of the bus that is told of the end")
    add("--idempotency-key", metavar="KEY", help="handed in again under it, it is the same job")
    add("--wait", action="store_true", help="follow the jobs and print their transcripts instead")
    add("--format", choices=FORMATS, help="how to write those (default: text)")


def _models(commands: Any) -> None:
    models = _command(commands, "models", "List, fetch and verify models.")
    actions = models.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=_Parser
    )
    _command(actions, "list", "List the models known by name, and which are here.")
    pull = _command(actions, "pull", "Fetch a model, or mend what is damaged of it.")
    pull.add_argument("name", metavar="NAME", help="a name of the list, or org/repo of the hub")
    verify = _command(actions, "verify", "Compare every file of a model with its known hash.")
    verify.add_argument(
        "name", metavar="NAME", nargs="?", help="which one (default: all that are here)"
    )


def _cache(commands: Any) -> None:
    cache = _command(commands, "cache", "Look at the workers' caches, or empty them.")
    actions = cache.add_subparsers(
        dest="action", metavar="ACTION", required=True, parser_class=_Parser
    )
    _command(actions, "clear", "Make all workers forget their answers, and say how many.")
    _command(actions, "stats", "Print hits, misses and more of each worker's cache.")


def _health(commands: Any) -> None:
    health = _command(
        commands,
        "health",
        "Ask a worker or a gateway how it is; the exit status is 0 if it is well, for containers and scripts.",
    )
    health.add_argument(
        "url", metavar="URL", nargs="?",
        help="where it is asked, such as http://127.0.0.1:8000 (default: the worker of this machine at METRICS_PORT)",
    )  # fmt: skip
    health.add_argument(
        "--live", action="store_true",
        help="ask whether it is alive, at /live (default: whether it can serve, at /ready)",
    )  # fmt: skip


def _bench(commands: Any) -> None:
    bench = _command(
        commands,
        "bench",
        "Measure speed, errors and memory beside faster-whisper itself, on your clips.",
    )
    add = bench.add_argument
    add(
        "place", metavar="FOLDER", type=Path,
        help="speech to measure with: name.txt beside each name.wav, or a manifest.jsonl (or that file)",
    )  # fmt: skip
    add(
        "--tune", action="store_true",
        help="measure replicas, threads and batches instead, and print the settings that suit this machine",
    )  # fmt: skip
    add(
        "--via", metavar="ROAD,…", type=_some_of("engine", "bus", "http"), default="engine,bus,http",
        help="by which roads (default: %(default)s)",
    )  # fmt: skip
    add(
        "--against", metavar="WHOM,…", type=_some_of("same", "defaults", "batched", "none"),
        default="same,defaults,batched",
        help="faster-whisper with the same replicas, with its defaults, its batched pipeline, or none"
        " (default: %(default)s)",
    )  # fmt: skip
    add(
        "--at-once", metavar="N,…", type=_numbers, default="1,2,8,32",
        help="requests in flight (default: %(default)s)",
    )  # fmt: skip
    add(
        "--language", choices=("given", "detected", "both"), default="both",
        help="whether the language is told (default: %(default)s)",
    )  # fmt: skip
    add("--languages", metavar="XX,…", type=_listed, help="clips in these only (default: all)")
    add("--longest", metavar="SECONDS", type=_seconds, default=30.0, help="of a clip (default: 30)")
    add("--most", metavar="N", type=_positive, help="take so many clips, evenly (default: all)")
    _bench_machine(add)


def _bench_machine(add: Any) -> None:
    add("--model", metavar="NAME", default="base", help="a name or a folder (default: %(default)s)")
    add(
        "--device", choices=("auto", "cpu", "cuda"), default="auto",
        help="of all that are compared (default: %(default)s)",
    )  # fmt: skip
    add("--compute-type", metavar="TYPE", default="int8", help="likewise (default: %(default)s)")
    add("--replicas", metavar="N", type=_positive, help="(default: what a worker here takes)")
    add("--threads", metavar="N", type=_positive, default=1, help="of one replica (default: 1)")
    add(
        "--set", metavar="VARIABLE=VALUE", type=_assignment, action="append", default=[],
        help="a further setting of ours, such as WHISPER__BATCH=4; may be given several times",
    )  # fmt: skip
    add(
        "--json", metavar="PATH", type=Path,
        help="where the figures go, and the pictures beside them (default: a file in bench-results/)",
    )  # fmt: skip


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _some_of(*words: str) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        found = _listed(text)
        if not found or not set(found) <= set(words):
            raise argparse.ArgumentTypeError(f"{text!r} is not some of {', '.join(words)}")
        return [word for word in words if word in found and word != "none"]

    return read


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"{text!r} is not VARIABLE=VALUE")
    return name, value


def _language(text: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a language's code such as en or de")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)
