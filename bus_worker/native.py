"""What wheels take from the system they run on: which shared library is away, and how to get it."""

import re
import sys
from pathlib import Path

__all__ = ["advice", "lacking", "on_nixos"]

_AWAY = re.compile(r"(\S+\.so[.\d]*): cannot open shared object file")
_DEBIAN = {
    "libstdc++": "libstdc++6",
    "libgcc_s": "libgcc-s1",
    "libgomp": "libgomp1",
    "libz": "zlib1g",
}
"""The packages of what manylinux wheels expect to find (PEP 600), by the library's name."""


def lacking(exc: BaseException) -> str | None:
    """The shared library that was not found, if that is what an import ended with."""
    found = _AWAY.findall(str(exc))
    return found[-1] if found else None


def advice(library: str) -> str:
    """How to get a library on this system, to go behind what is wrong."""
    if on_nixos():
        return (
            "NixOS shows no program its libraries: run this inside the project's `nix-shell`,"
            " or add the library to LD_LIBRARY_PATH"
        )
    package = _DEBIAN.get(library.partition(".so")[0])
    if package is None:
        return f"install the system package that has {library}"
    return f"install it (Debian, Ubuntu: apt install {package})"


def on_nixos() -> bool:
    """Whether this is NixOS, or a Python of its store, which looks in no system folder either."""
    return Path("/etc/NIXOS").exists() or sys.base_prefix.startswith("/nix/store/")
