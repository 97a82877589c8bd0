"""The model's life: found, loaded, warmed, and the threads it works in.

CTranslate2's errors become ours here, and nowhere else.
"""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bus_worker.errors import BadRequest, BadSetting, Failed, ModelUnavailable, SetupError
from bus_worker.messages import ModelInfo
from bus_worker.model_store import LocalModel, find_model
from bus_worker.plugin import Draft
from bus_worker.plugin import Options as Asked
from plugins.whisper.options import Options

if TYPE_CHECKING:
    from plugins.whisper.decoder import Decoder
    from plugins.whisper.decoding import Heard

_log = logging.getLogger(__name__)

_CGROUP = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded and warm model."""

    model: ModelInfo
    slots: int
    languages: frozenset[str]
    decoder: "Decoder"
    executor: ThreadPoolExecutor
    runs_on: dict[str, str]

    async def hear(self, draft: Draft, options: Options) -> "Heard":
        """Everything said in the draft's samples.

        Raises:
            BadRequest: a language or a task that the model does not know.
        """
        _refuse(draft.options, self)
        return await draft.run_in(self.executor, self._hear, draft, options)

    def _hear(self, draft: Draft, options: Options) -> "Heard":
        from plugins.whisper.decoding import hear  # noqa: PLC0415 - costly, and long loaded by now

        try:
            return hear(self.decoder, draft, options)
        except (RuntimeError, ValueError, MemoryError) as exc:
            _log.exception("the model failed on %.1f s of audio", draft.duration)
            if "out of memory" in str(exc):
                raise Failed("the model ran out of memory on this audio") from exc
            raise Failed("the model failed on this audio") from exc


@asynccontextmanager
async def open_engine(options: Options) -> AsyncIterator[Engine]:
    """The model, ready for its first request.

    Raises:
        ModelUnavailable: its files are not here, damaged, or no model.
        BadSetting: the device or the arithmetic is not to be had.
    """
    loop = asyncio.get_running_loop()
    loading = ThreadPoolExecutor(2, "whisper-load")
    stop = threading.Event()
    try:
        # Side by side: hashing the files and importing the library, then weights and voice activity.
        (local, decoder), _ = await asyncio.gather(
            loop.run_in_executor(loading, _load, options, stop),
            loop.run_in_executor(loading, _load_vad),
        )
    finally:
        stop.set()
        loading.shutdown(wait=False, cancel_futures=True)
    slots = decoder.model.num_workers * options.batch
    executor = ThreadPoolExecutor(slots, "whisper")
    try:
        yield Engine(
            local.info,
            slots,
            decoder.languages(),
            decoder,
            executor,
            {"device": decoder.model.device, "compute_type": decoder.model.compute_type},
        )
    finally:
        # Not joined: a thread still decoding for a caller who left must not hold up the stop.
        executor.shutdown(wait=False, cancel_futures=True)


def _load(options: Options, stop: threading.Event) -> "tuple[LocalModel, Decoder]":
    local = find_model(
        options.model, model_dir=options.model_dir, model_name=options.model_name, stop=stop
    )
    import ctranslate2  # noqa: PLC0415 - half a second with what follows: here, beside the other thread

    from plugins.whisper.decoder import Decoder  # noqa: PLC0415 - as above
    from plugins.whisper.sharing import SharedModel  # noqa: PLC0415 - as above

    gpus = ctranslate2.get_cuda_device_count()  # type: ignore[attr-defined]  # has no types
    device = options.device if options.device != "auto" else "cuda" if gpus else "cpu"
    if device == "cuda" and not gpus:
        raise BadSetting("WHISPER_DEVICE='cuda': there is no CUDA device here; use 'cpu' or 'auto'")
    supported = ctranslate2.get_supported_compute_types(device)  # type: ignore[attr-defined]  # same
    if options.compute_type not in {*supported, "default", "auto"}:
        raise BadSetting(
            f"WHISPER_COMPUTE_TYPE={options.compute_type!r}: a {device} here can do"
            f" {', '.join(sorted(supported))}"
        )
    lanes = options.replicas or _replicas(device, options.threads)
    try:
        decoder = Decoder(
            str(local.path),
            device=device,
            compute_type=options.compute_type,
            cpu_threads=options.threads,
            num_workers=lanes,
        )
        decoder.model = SharedModel(decoder.model, lanes=lanes, most=options.batch)
        decoder.warm()
    except Exception as exc:
        raise _unloadable(local, device, exc) from exc
    if options.default_language not in (known := decoder.languages()) and len(known) > 1:
        raise BadSetting(
            f"WHISPER__DEFAULT_LANGUAGE={options.default_language!r}: model {local.info.name!r}"
            f" knows {', '.join(sorted(known))}"
        )
    return local, decoder


def _load_vad() -> None:
    """Voice activity detection, warm; it is one for the process, and safe from several threads."""
    import numpy as np  # noqa: PLC0415 - as in _load

    from plugins.whisper.decoding import find_speech  # noqa: PLC0415 - as in _load

    find_speech(np.zeros(16_000, np.float32), 0.5, 500)


def _unloadable(local: LocalModel, device: str, exc: Exception) -> SetupError:
    """What CTranslate2 could not load, as one sentence; this one is for the operator's eyes."""
    why = str(exc).partition("\n")[0] or type(exc).__name__
    if device == "cuda":
        return BadSetting(
            f"WHISPER_DEVICE: the GPU cannot be used ({why}); CUDA 12 with cuBLAS and cuDNN 9 must"
            " be installed and memory free, or use 'cpu'"
        )
    return ModelUnavailable(f"{local.path} cannot be loaded as a Whisper model: {why}")


def _replicas(device: str, threads: int) -> int:
    """As many as the processor has room for; a GPU is kept busy by one."""
    return 1 if device == "cuda" else max(1, available_cores() // threads)


def available_cores(quota: Path = _CGROUP) -> int:
    """Cores that this process may use: its affinity, and a container's share of time."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        allowed, period = quota.read_text(encoding="ascii").split()
        return cores if allowed == "max" else max(1, min(cores, int(allowed) // int(period)))
    except (OSError, ValueError):  # no cgroup v2 here: nothing is rationed that way
        return cores


def _refuse(asked: Asked, engine: Engine) -> None:
    """Raise for what the model cannot do."""
    name, english = engine.model.name, len(engine.languages) == 1
    if asked.language is not None and asked.language not in engine.languages:
        raise BadRequest(
            f"'options.language': model {name!r} does not know {asked.language!r}"
            + ("; it knows English only" if english else ""),
            languages=sorted(engine.languages),
        )
    if asked.task == "translate" and english:
        raise BadRequest(f"'options.task': model {name!r} knows English only and cannot translate")
