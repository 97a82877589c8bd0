"""What is said to a person: results on standard output, what went wrong on standard error."""

import sys

__all__ = ["complain", "say"]


def say(text: str = "", end: str = "\n") -> None:
    """Print at once: a reader may be waiting at the other end of a pipe."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def complain(sentence: str) -> None:
    """Say in one sentence what went wrong."""
    sys.stderr.write(f"bus-worker: {sentence}\n")
