# Everything beside the Python packages, which `make` installs from the pinned lists:
#
#   nix-shell --run "make up"
#   nix-shell --arg withTests true --run "make test"
#
# nixpkgs is the channel named below. For the one of your system: --arg nixpkgs '<nixpkgs>'.
# To pin it, put a commit and what `nix-prefetch-url --unpack` says of it in the channel's place:
#
#   nixpkgs ? fetchTarball {
#     url = "https://github.com/NixOS/nixpkgs/archive/<commit>.tar.gz";
#     sha256 = "<hash>";
#   },
{
  nixpkgs ? fetchTarball "channel:nixos-26.05",
  pkgs ? import nixpkgs { },
  withTests ? false, # what the tests drive besides: a browser, Prometheus, speech to hear
}:

let
  # What the wheels of numpy, PyAV, CTranslate2, numba and soundfile look for outside themselves.
  libraries = pkgs.lib.makeLibraryPath [
    pkgs.stdenv.cc.cc.lib # libstdc++, libgcc_s, libgomp
    pkgs.zlib
  ];
in
pkgs.mkShell {
  packages = [
    pkgs.python311
    pkgs.gnumake
    pkgs.cacert
    pkgs.nats-server
    pkgs.redis # the valkey-server in a wheel was linked for other systems
    pkgs.nodejs
    pkgs.ffmpeg # to make clips; the service itself brings its decoders
  ]
  ++ pkgs.lib.optionals withTests [
    pkgs.chromium
    pkgs.espeak-ng
    pkgs.prometheus
    pkgs.prometheus.cli # promtool
    pkgs.prometheus-alertmanager
    pkgs.sox
  ];

  # A wheel's library finds these by the path only; without it `bus-worker doctor` says so.
  LD_LIBRARY_PATH = libraries;

  # Programs in wheels (ruff, uv) start by these where the system has `programs.nix-ld.enable`.
  NIX_LD = "${pkgs.stdenv.cc.bintools.dynamicLinker}";
  NIX_LD_LIBRARY_PATH = libraries;

  PLAYWRIGHT_NODEJS_PATH = "${pkgs.nodejs}/bin/node";
}
