"""What a worker remembers of requests it has answered: how they are named, which answers fit again.

An answer is kept under two names: one of the bytes as they came, so that the same file is
answered without decoding it, one of the samples, so that the same sound in another file is found.
Both hold everything else that changes the answer.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from bus_worker.cache import COPY, Cache, NoCache
from bus_worker.errors import BadRequest
from bus_worker.messages import ModelInfo, Segment, pack, unpack
from bus_worker.pipeline import Pipeline
from bus_worker.plugin import Draft

__all__ = ["BUDGET", "Answer", "Recall", "Visit"]

_log = structlog.get_logger(__name__)

SCHEMA = 1
"""Part of every name; raise it when the names or the values mean something else."""
BUDGET = 0.25
"""Seconds that one request spends waiting for the cache, all questions together."""
LARGEST = 1024 * 1024
"""Bytes of a value; a larger one is not kept."""
INLINE = 512 * 1024
"""Bytes hashed on the event loop: 0.4 ms; more are hashed in a thread."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a transcript says that is the same whoever asks."""

    text: str
    language: str | None
    language_probability: float | None
    duration: float
    segments: list[Segment]
    model: ModelInfo
    warnings: list[str]
    at: float
    """Unix seconds at which it was worked out."""

    @classmethod
    def of(cls, draft: Draft, model: ModelInfo) -> "Answer":
        """What a draft has come to."""
        return cls(
            text=draft.text or "".join(segment.text for segment in draft.segments).strip(),
            language=draft.language,
            language_probability=draft.language_probability,
            duration=round(draft.duration, 3),
            segments=draft.segments,
            model=draft.model or model,
            warnings=draft.warnings,
            at=time.time(),
        )


_ANSWER = TypeAdapter(Answer)


@dataclass(slots=True)
class Recall:
    """A worker's cache, seen as answers. `ttl` is how many seconds one is good."""

    cache: Cache = field(default_factory=NoCache)
    ttl: float = 3600.0
    counts: Counter[str] = field(default_factory=Counter)

    def visit(
        self,
        draft: Draft,
        pipeline: Pipeline,
        options: Mapping[str, BaseModel],
        model: ModelInfo,
        *,
        fresh: bool = False,
    ) -> "Visit":
        """Begin one request's dealings with the cache; the draft is as the first stage will see it.

        Args:
            fresh: the request wants to be heard anew.
        """
        return Visit(self, draft, pipeline, options, model, fresh)

    def figures(self) -> dict[str, Any]:
        """Hits and misses of requests, and what the cache itself counts."""
        return {
            "hits": self.counts["hits"],
            "misses": self.counts["misses"],
            "shared": self.counts["shared"],
            **self.cache.figures(),
        }


@dataclass(slots=True)
class Visit:
    """One request's questions to the cache, and what is kept of it in the end."""

    recall: Recall
    draft: Draft
    pipeline: Pipeline
    options: Mapping[str, BaseModel]
    model: ModelInfo
    fresh: bool = False
    left: float = BUDGET
    by_bytes: str | None = None
    by_samples: str | None = None
    lock: str | None = None
    """Our token, while the lock on the name is ours to give back."""

    async def named(self, sha256: str | None = None) -> str | None:
        """The name of these very bytes (or those with this hash), asked in this very way."""
        if self.recall.cache.keeps:
            audio = sha256 or await self._digest(self.draft.audio)
            self.by_bytes = self._name("bytes", audio, self.draft.format)
        return self.by_bytes

    async def same_bytes(self) -> Answer | None:
        """The answer to what was named."""
        return await self._find(self.by_bytes)

    async def same_bytes_or_lock(self, token: str) -> tuple[Answer | None, bool]:
        """The answer to what was named; without one, whether it is ours to work out.

        Not ours: somebody with another token is at it. Give the lock back with `keep` or `unlock`.
        """
        assert self.by_bytes is not None  # noqa: S101 - named before
        began = time.monotonic()
        value, ours = await self.recall.cache.get_or_lock(self.by_bytes, token, self.left)
        self._took(began)
        found = self._known(value)
        if found is None and value is not None:
            ours = True  # unreadable: there is no lock on it either
        elif ours:
            self.lock = token
        return found, ours

    async def hold(self) -> None:
        """Keep the lock, if we have it."""
        if self.lock and self.by_bytes:
            await self.recall.cache.hold(self.by_bytes, self.lock)

    async def unlock(self) -> None:
        """Give the lock back, if we have it."""
        if self.lock and self.by_bytes:
            token, self.lock = self.lock, None
            await self.recall.cache.unlock(self.by_bytes, token)

    async def same_samples(self) -> Answer | None:
        """The answer to these samples, whatever file they came in; ask at the pipeline's cut."""
        samples = self.draft.samples
        if samples is None or not self.recall.cache.ready():
            return None
        heard = await self._digest(np.ascontiguousarray(samples).view(np.uint8).data)
        name = self._name("samples", heard, str(samples.dtype), samples.shape, self._aside())
        self.by_samples = COPY + name if name else None
        found = await self._find(self.by_samples)
        if found is not None and self.by_bytes:
            await self._put([self.by_bytes], found)
        return found

    async def keep(self, answer: Answer) -> None:
        """Remember a new answer under both names."""
        if not self.fresh and self.by_bytes:
            self.recall.counts["misses"] += 1
        await self._put([name for name in (self.by_bytes, self.by_samples) if name], answer)

    async def _find(self, name: str | None) -> Answer | None:
        if name is None or self.fresh:
            return None
        began = time.monotonic()
        value = await self.recall.cache.get(name, self.left)
        self._took(began)
        return self._known(value)

    def _took(self, began: float) -> None:
        """Of the request's time for the cache, so much is gone."""
        took, now = time.monotonic() - began, time.time()
        self.left -= took
        self.draft.timeline.append(("cache", now - took, now))

    def _known(self, value: bytes | None) -> Answer | None:
        found = _read(value)
        if (
            found is None or found.at + self.recall.ttl <= time.time()
        ):  # a longer CACHE_TTL than ours
            return None
        self.recall.counts["hits"] += 1
        return found

    async def _put(self, names: list[str], answer: Answer) -> None:
        """A copy lives no longer than what it was copied from."""
        ttl = answer.at + self.recall.ttl - time.time()
        value = _written(answer) if names and ttl > 0 and self.recall.cache.ready() else None
        if value is not None:
            began = time.monotonic()
            lock = (self.by_bytes, self.lock) if self.by_bytes and self.lock else None
            await self.recall.cache.put(dict.fromkeys(names, value), ttl, self.left, unlock=lock)
            self.lock = None
            self._took(began)

    async def _digest(self, data: bytes | memoryview) -> str:
        """A fingerprint, made where it does not hold up the event loop."""
        if len(data) <= INLINE:
            return _sha256(data)
        return await self.pipeline.in_thread(self.draft, _sha256, data)

    def _aside(self) -> list[Any]:
        """What earlier stages left in the draft besides samples, for later ones."""
        draft = self.draft
        return [
            draft.duration, draft.language, draft.language_probability, draft.text,
            draft.segments, draft.warnings, draft.extras,
        ]  # fmt: skip

    def _name(self, kind: str, *what: Any) -> str | None:
        """A name for `what` and everything else that changes the answer; None if it cannot be told."""
        stages = [
            (step.stage.name, step.stage.version, self.options[step.stage.name])
            for step in self.pipeline.steps
        ]
        asked = (self.draft.options, self.draft.stream)
        everything = [SCHEMA, kind, what, asdict(self.model), stages, asked]
        try:
            return _sha256(json.dumps(everything, default=_plain, sort_keys=True).encode())
        except (TypeError, ValueError) as exc:
            _log.debug("not_cacheable", why=str(exc))
            return None


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """What json does not know, as something that it does and that tells it apart.

    Raises:
        TypeError: there is no telling.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Segment):
        return asdict(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [str(value.dtype), value.shape, _sha256(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, np.generic):
        return [str(value.dtype), value.item()]
    if isinstance(value, bytes):
        return _sha256(value)
    raise TypeError(f"{type(value).__name__} has no name in the cache")


def _written(answer: Answer) -> bytes | None:
    """An answer as a value; None for one that is too large, or no plain data."""
    try:
        value = pack(asdict(answer))
    except (TypeError, ValueError, OverflowError) as exc:
        _log.debug("not_cacheable", why=str(exc))
        return None
    return value if len(value) <= LARGEST else None


def _read(value: bytes | None) -> Answer | None:
    """The answer in a value; None for one that is not ours to read: another version's, or garbage."""
    if value is None:
        return None
    try:
        return _ANSWER.validate_python(unpack(value))
    except (BadRequest, ValidationError):
        _log.debug("cache_value_unreadable", size=len(value))
        return None
