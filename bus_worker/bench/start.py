"""How long a worker takes to start and a client to import, and what an idle worker holds."""

import asyncio
import io
import random
import statistics
import sys
import wave
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import pi, sin
from pathlib import Path
from typing import Any

from bus_worker.bench.processes import WORKER, started
from bus_worker.bench.report import Section
from bus_worker.client import TranscribeClient
from bus_worker.embedded import nats_server
from bus_worker.errors import SetupError

__all__ = ["measure", "murmur"]

STARTS, IMPORTS = 3, 9
MODEL = "base"
SPEECH = Path(__file__).resolve().parents[3] / "shared" / "speech" / "clips" / "jfk-wav.wav"
"""Eleven seconds of real speech, where it lies beside the project."""
IMPORT = (
    "import time; began = time.perf_counter(); import bus_worker.client;"
    " print(time.perf_counter() - began)"
)
WALL = "worker start to ready, wall clock"
OWN = "worker start to ready, its own clock"
IMPORTING = "import bus_worker.client"
RATE = 16_000


async def measure(*, quick: bool = False) -> Section:
    """Fresh processes, several times each; the model's files are fetched before, if they must be."""
    clip = SPEECH.read_bytes() if SPEECH.is_file() else murmur()
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    slots = 0
    async with nats_server(default_model=MODEL) as server:
        for number in range(1 if quick else STARTS + 1):
            slots, figures = await _one_worker(server.url, clip)
            # The first one reads the files from the disk, and fetches them where they are not there.
            if number or quick:
                for name, value in figures.items():
                    found[name].append(value)
    for _ in range(IMPORTS):
        found[IMPORTING, "s"].append(await _import_client())
    heard = "JFK's sentence, 11 s" if SPEECH.is_file() else "11 s of noise like speech"
    return Section(
        f"Start and memory: model {MODEL}, int8 on CPU, {slots} slots",
        [_row(*name, values) for name, values in found.items()],
        f"The clip is {heard}. Files are in the page cache. RSS counts shared pages whole, PSS by share.",
    )


def _row(what: str, unit: str, values: Sequence[float]) -> dict[str, Any]:
    digits = 2 if unit == "s" else None
    return {
        "what": what,
        "unit": unit,
        "median": round(statistics.median(values), digits),
        "lowest": round(min(values), digits),
        "highest": round(max(values), digits),
        "times": len(values),
    }


async def _one_worker(url: str, clip: bytes) -> tuple[int, dict[tuple[str, str], float]]:
    """A worker's slots, and its figures by name and unit."""
    variables = {"WHISPER_MODEL": MODEL, "WHISPER_DEVICE": "cpu", "NATS_URL": url}
    async with started(*WORKER, **variables) as worker:
        figures = {(WALL, "s"): worker.wall, (OWN, "s"): float(worker.ready["seconds"])}
        await asyncio.sleep(1)  # what only the start needed is given back
        figures |= _named(_memory(worker.pid), "idle")
        async with TranscribeClient(url, model=MODEL) as client:
            await client.transcribe(clip, vad=False)
        figures |= _named(_memory(worker.pid), "after one clip")
    return int(worker.ready["slots"]), figures


def _named(memory: Mapping[str, float], when: str) -> dict[tuple[str, str], float]:
    return {(f"{kind} of the worker, {when}", "MB"): value for kind, value in memory.items()}


def _memory(pid: int) -> dict[str, float]:
    """Megabytes that a process holds, as Linux counts them; nothing elsewhere."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    kilobytes = {
        line.partition(":")[0]: float(line.split()[1]) for line in lines if line.endswith("kB")
    }
    return {name.upper(): kilobytes[name] / 1024 for name in ("Rss", "Pss")}


async def _import_client() -> float:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", IMPORT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    if process.returncode:
        raise SetupError("bus_worker.client cannot be imported")
    return float(out)


def murmur(seconds: float = 11.0) -> bytes:
    """A wav with a voice's pitch, overtones and syllables, and nothing said."""
    dice = random.Random(1)  # noqa: S311 - a sound, no secret
    samples = array("h")
    for n in range(int(seconds * RATE)):
        t = n / RATE
        syllable = max(0.0, sin(2 * pi * 3.5 * t))
        voice = sum(sin(2 * pi * 120 * k * t) / k for k in range(1, 12))
        samples.append(int(6000 * syllable * (voice + dice.uniform(-0.3, 0.3)) / 3))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.tobytes())
    return file.getvalue()
