"""One CTranslate2 model under many requests: decoder calls that fit together are made as one.

A decoder step reads all of its weights for one row as for eight: on two cores eight rows of beam 5
cost a third of what they cost alone. Encoding gains nothing from company on a CPU; on a GPU it does.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bus_worker.batching import Batcher

__all__ = ["SharedModel"]


class _Row(NamedTuple):
    """One caller's part of a decoder call."""

    encoded: Any
    prompt: list[int]
    how: dict[str, Any]


class SharedModel:
    """CTranslate2's Whisper, for callers in several threads; what is not named here is the model's own."""

    def __init__(self, model: Any, *, lanes: int, most: int) -> None:
        """Set it up.

        Args:
            model: a `ctranslate2.models.Whisper`.
            lanes: decoder calls at once: one for each replica.
            most: rows in one of them.
        """
        self._model = model
        self.decoding: Batcher[_Row, Any] = Batcher(self._decode, lanes=lanes, most=most)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(
        self,
        encoded: Any,
        prompts: list[list[int]],
        check: Callable[[], None] = lambda: None,
        met: Callable[[int, int], None] = lambda _all, _led: None,
        **how: Any,
    ) -> list[Any]:
        """As CTranslate2's, for one row.

        Rows go together when their contexts are equally long (cross-attention knows no mask), their
        prompts too (it wants `<|startoftranscript|>` in one place), and all else is asked alike.
        Sampling is each caller's own: its result would hang on who else is there.
        `met` is told of its company, see `Batcher`.
        """
        if how.get("sampling_temperature"):
            met(1, 1)
            return list(self._model.generate(encoded, prompts, **how))
        (prompt,) = prompts
        asked = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(how.items())
        )
        key = (tuple(encoded.shape), len(prompt), asked)
        return [self.decoding(key, _Row(encoded, prompt, how), check, met)]

    def _decode(self, rows: Sequence[_Row]) -> list[Any]:
        if len(rows) == 1:
            return list(self._model.generate(rows[0].encoded, [rows[0].prompt], **rows[0].how))
        encoded = _stacked([row.encoded for row in rows])
        return list(self._model.generate(encoded, [row.prompt for row in rows], **rows[0].how))


def _stacked(views: Sequence[Any]) -> Any:
    """Encoder outputs of shape (1, positions, width) as one of (rows, positions, width)."""
    import ctranslate2  # noqa: PLC0415 - half a second, long loaded by now

    storage = ctranslate2.StorageView  # type: ignore[attr-defined]  # has no types
    return storage.from_array(np.concatenate([np.asarray(one) for one in views]))
