"""The NixOS shell: it can be read, and asks nixpkgs for nothing under a name that is not there."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NIXPKGS = """
let
  packages = [
    "cacert" "chromium" "espeak-ng" "ffmpeg" "gnumake" "nats-server" "nodejs"
    "prometheus-alertmanager" "python311" "redis" "sox" "zlib"
  ];
  named = builtins.listToAttrs (map (name: { inherit name; value = "/store/${name}"; }) packages);
in
named // {
  prometheus = { outPath = "/store/prometheus"; cli = "/store/prometheus-cli"; };
  stdenv.cc = { cc.lib = "/store/gcc-lib"; bintools.dynamicLinker = "/store/glibc/lib/ld.so"; };
  lib = {
    makeLibraryPath = paths: builtins.concatStringsSep ":" (map (path: path + "/lib") paths);
    optionals = wanted: list: if wanted then list else [ ];
  };
  mkShell = shell: shell // { packages = map (package: "${package}") shell.packages; };
}
"""
"""As much of nixpkgs as the shell asks for; these names were looked up there."""


def nix(*arguments: str) -> str:
    done = subprocess.run(
        ["nix-instantiate", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_shell_nix_can_be_read():
    assert "mkShell" in nix("--parse", "shell.nix")


@pytest.mark.parametrize(("with_tests", "browser"), [("false", False), ("true", True)])
def test_the_shell_has_what_make_needs(with_tests: str, *, browser: bool):
    shell = json.loads(
        nix(
            "--eval", "--strict", "--json", "shell.nix",
            "--arg", "pkgs", NIXPKGS, "--arg", "withTests", with_tests,
        )
    )  # fmt: skip
    named = [package.removeprefix("/store/") for package in shell["packages"]]
    assert {"python311", "gnumake", "nats-server", "redis", "nodejs"} <= set(named)
    assert ("chromium" in named) is browser
    assert shell["LD_LIBRARY_PATH"] == "/store/gcc-lib/lib:/store/zlib/lib"
