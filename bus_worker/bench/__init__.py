"""Measures what the README's figures tell: scheduling under load, the road, the cache, large audio, jobs, start and memory.

`python -m bus_worker.bench` prints tables and leaves a JSON file in `bench-results/`; with `accuracy
PLACE` it compares the engine with faster-whisper itself on the clips there. `bus-worker bench` (in
`contest` and `tune`) is for everybody: each contender in a process of its own, all roads, pictures.
"""

from bus_worker.bench.command import main

__all__ = ["main"]
