"""The command line: reads the arguments, hands over to a command, ends in a status and at most one sentence.

A command is a module of this package that is imported when it is asked for: `transcribe` over the
bus must not need what a worker needs.
"""

import importlib
import io
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence

from bus_worker.cli.parser import build_parser
from bus_worker.cli.terminal import complain
from bus_worker.errors import BusWorkerError
from bus_worker.native import advice, lacking

__all__ = ["build_parser", "main"]

DONE, FAILED, INTERRUPTED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C."""
    _heed_sigterm()
    args = build_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal without UTF-8 gets escapes, not an end
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone; the interpreter's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as exc:  # noqa: BLE001 - ours to mend, but a person reads it
        complain(_sentence(exc, args.command))
        return FAILED
    return status


def _heed_sigterm() -> None:
    """Let SIGTERM end us even as a container's first process, from which the kernel keeps what nobody handles."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def _run(args: Namespace) -> int:
    command = importlib.import_module(f"bus_worker.cli.{args.command}")
    status: int = command.run(args)
    return status


def _sentence(exc: Exception, command: str) -> str:
    """What a person is told of a failure, and can do."""
    if isinstance(exc, BusWorkerError):
        return exc.message
    if isinstance(exc, ModuleNotFoundError):
        return (
            f"`bus-worker {command}` needs {exc.name}, which is not installed here:"
            " pip install 'bus-worker[worker]'"
        )
    if library := lacking(exc):
        return f"this system has no {library}: {advice(library)}"
    from bus_worker.settings import environment  # noqa: PLC0415 - `health` starts without it

    if environment().get("LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(exc)
    return f"unforeseen {type(exc).__name__}: {exc} (LOG_LEVEL=DEBUG shows where; please report it)"
