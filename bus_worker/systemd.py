"""Tells systemd how we are, where it asks to be told (`Type=notify`, `WatchdogSec=`); takes the socket it hands over."""

import logging
import os
import socket
from collections.abc import Mapping

__all__ = ["Systemd"]

_log = logging.getLogger(__name__)

FIRST = 3
"""The file descriptor at which sockets of a `.socket` unit begin."""


class Systemd:
    """sd_notify's protocol: lines in a datagram; where nobody asks, nothing is sent."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Args: variables is the environment, as systemd has set it."""
        self._address = variables.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # an abstract name
        self.every = _watchdog(variables) / 2
        """Seconds between two signs of life; infinite where none are wanted."""
        self._status = ""
        ours = variables.get("LISTEN_PID") == str(os.getpid())
        self._handed = int(variables.get("LISTEN_FDS", "0")) if ours else 0

    def handed(self) -> socket.socket | None:
        """The socket that systemd listens on for us, whether or not we run (a `.socket` unit); of several the first."""
        return socket.socket(fileno=FIRST) if self._handed else None

    def ready(self) -> None:
        """The start is over."""
        self._send("READY=1")

    def alive(self) -> None:
        """A sign of life, where they are wanted."""
        if self.every < float("inf"):
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; said when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)  # noqa: FBT003 - its only argument
                sock.sendto(line.encode(), self._address)
        except OSError as exc:
            _log.warning("systemd cannot be told %s: %s", line.partition("=")[0], exc)


def _watchdog(variables: Mapping[str, str]) -> float:
    """Seconds after which systemd misses a sign of life of ours; infinite where it does not look."""
    wanted, pid = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or not int(wanted) or (pid and pid != str(os.getpid())):
        return float("inf")
    return int(wanted) / 1e6
