"""faster-whisper's model, a step at a time: encode, detect the language, decode, find the words' times.

Importing this imports faster-whisper (half a second), so the engine does it while it loads. The
loop over the windows is ours: its own encodes the first window twice where the language is
detected, fills each up to 30 s, and has no place to try one again.
"""

import copy
import functools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import _LANGUAGE_CODES, Tokenizer
from faster_whisper.transcribe import Segment as RawSegment
from faster_whisper.transcribe import TranscriptionOptions, get_suppressed_tokens
from faster_whisper.transcribe import Word as RawWord
from faster_whisper.utils import get_end

from bus_worker.plugin import SAMPLE_RATE, Samples
from bus_worker.plugin import Options as Asked
from plugins.whisper.guard import Written, doubt
from plugins.whisper.options import Options
from plugins.whisper.windows import Window

RESET = 0.5
"""Text decoded at a higher temperature than this is not shown to the decoder again."""
_ORDER = re.compile(r"<\|[^|>]*\|>")
"""How an order to the decoder is written."""
_UNSAYABLE = frozenset({"Cc", "Cn", "Co", "Cs"})
"""Control characters, and code points that are no characters (joiners, "Cf", spell words)."""


class Language(NamedTuple):
    """A language and how probable the model found it; unsure: it is the operator's default."""

    code: str
    probability: float
    sure: bool = True


@dataclass(slots=True)
class Effort:
    """What one caller's audio cost, for the log."""

    context: int = 0
    """Frames encoded."""
    doubts: list[str] = field(default_factory=list)
    """Why a window was tried again with a longer context."""
    batch: int = 0
    """Rows of the largest decoder call that it was part of."""
    calls: list[int] = field(default_factory=list)
    """Rows of each decoder call that it made, for itself and for others."""

    def met(self, rows: int, led: int) -> None:
        """It was decoded with others."""
        self.batch = max(self.batch, rows)
        if led:
            self.calls.append(led)


class _Watched:
    """CTranslate2's model as one caller's thread has it: out of reach once nobody waits.

    A window may be decoded at six temperatures before there is a segment. Each try is one call,
    and no call can be stopped: base on one slow core writes all of its 224 tokens in 4 to 8 s.
    """

    def __init__(self, model: Any, check: Callable[[], None], effort: Effort) -> None:
        self._model = model
        self._check = check
        self._effort = effort

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._model, name)

    def generate(self, encoded: Any, prompts: list[list[int]], **how: Any) -> list[Any]:
        """One row's; who waits in line for company may leave."""
        self._check()
        return list(self._model.generate(encoded, prompts, self._check, self._effort.met, **how))


class Decoder(WhisperModel):
    """faster-whisper's model, a step at a time; safe from several threads.

    Read in its source: features, tokenizer and voice activity detection keep nothing between calls,
    CTranslate2 hands each call to a replica, and lets go of the interpreter's lock meanwhile.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.effort = Effort()

    @functools.cached_property
    def eot(self) -> int:
        """The first token that is no text."""
        return int(self.hf_tokenizer.token_to_id("<|endoftext|>") or 0)

    @functools.cached_property
    def unsaid(self) -> list[int]:
        """Tokens that are never written (brackets, notes); the same in every language."""
        tokenizer = Tokenizer(
            self.hf_tokenizer, self.model.is_multilingual, task="transcribe", language="en"
        )
        return list(get_suppressed_tokens(tokenizer, [-1]))  # type: ignore[arg-type]  # it says tuple, wants list

    def watched(self, check: Callable[[], None]) -> Self:
        """The same model for one caller: `check` is called before each of its steps, and may raise."""
        watched = copy.copy(self)
        watched.effort = Effort()
        watched.model = _Watched(self.model, check, watched.effort)
        return watched

    def languages(self) -> frozenset[str]:
        """The languages it knows; `base` has no token for some that `large-v3` has."""
        if not self.model.is_multilingual:
            return frozenset({"en"})
        known = self.hf_tokenizer.token_to_id
        return frozenset(code for code in _LANGUAGE_CODES if known(f"<|{code}|>") is not None)

    def warm(self) -> None:
        """Pay for every first call on a second of silence; a whole window would cost seven times that."""
        window = self.listen(np.zeros(SAMPLE_RATE, np.float32))
        if self.model.is_multilingual:
            self.model.detect_language(window.encoded)
        tokenizer = Tokenizer(
            self.hf_tokenizer, self.model.is_multilingual, task="transcribe", language="en"
        )
        prompt = self.get_prompt(tokenizer, tokenizer.encode(" warm"))
        self.model.generate(
            window.encoded, [prompt], beam_size=5, max_length=len(prompt) + 8,
            suppress_tokens=self.unsaid,
        )  # fmt: skip

    def listen(self, samples: Samples, *, short: bool = True) -> Window:
        """The first window of samples (one frame of 10 ms at least), encoded."""
        return Window(self.feature_extractor(samples)[:, :-1], self.encode, short=short)

    def encode(self, features: np.ndarray) -> Any:
        """As the parent's, counted."""
        self.effort.context += features.shape[-1]
        return super().encode(features)

    def detect(self, window: Window, options: Options) -> Language:
        """The language of a window, or the operator's default where the model is unsure."""
        if not self.model.is_multilingual:
            return Language("en", 1.0)
        odds = self._odds(window)
        if max(odds.values()) < options.language_threshold and not window.whole:
            self.effort.doubts.append("language")
            window.fill()
            odds = self._odds(window)
        best = max(odds, key=odds.__getitem__)
        if odds[best] >= options.language_threshold:
            return Language(best, odds[best])
        return Language(
            options.default_language, odds.get(options.default_language, 0.0), sure=False
        )

    def _odds(self, window: Window) -> dict[str, float]:
        """How probable each language is."""
        found = self.model.detect_language(window.encoded)[0]  # [("<|en|>", 0.98), …]
        return {token[2:-2]: probability for token, probability in found}

    def decode(
        self, window: Window, language: str, asked: Asked, options: Options, earlier: list[int]
    ) -> Iterator[RawSegment]:
        """Segments as they are decoded: the work is done where they are taken."""
        tokenizer = Tokenizer(
            self.hf_tokenizer, self.model.is_multilingual, task=asked.task, language=language
        )
        how = _transcription_options(asked, options, self.unsaid)
        shown = [*self._plain(tokenizer, asked.prompt or ""), *earlier]
        spoken = 0.0
        rest: Window | None = window
        while rest is not None:
            prompt = self.get_prompt(tokenizer, shown, hotwords=how.hotwords)
            written = self._write(rest, prompt, tokenizer, how, options)
            if _silent(written, options):
                rest = rest.next(rest.seek)
                continue
            found, seek, spoken = self._cut(rest, written, tokenizer, how, spoken)
            segments = list(_segments(found, written, tokenizer))
            yield from segments
            keep = how.condition_on_previous_text and written.temperature <= RESET
            shown = [*shown, *(token for raw in segments for token in raw.tokens)] if keep else []
            rest = rest.next(seek)

    def _write(
        self,
        window: Window,
        prompt: list[int],
        tokenizer: Tokenizer,
        how: TranscriptionOptions,
        options: Options,
    ) -> Written:
        """What is said in a window: the first text without doubt, tried with ever longer contexts.

        The cheapest first: a longer context, then the temperatures, and a whole window at last.
        """
        tries = how if window.whole else replace(how, temperatures=how.temperatures[:1])
        while True:
            written = Written.of(
                *self.generate_with_fallback(window.encoded, prompt, tokenizer, tries)
            )
            if window.whole:
                return written
            why = doubt(written, window.seconds, tokenizer.timestamp_begin)
            if tries is not how:
                why = why or _unsure(written, options)
            if why is None:
                return written
            self.effort.doubts.append(why)
            window.widen()
            tries = how

    def _cut(
        self,
        window: Window,
        written: Written,
        tokenizer: Tokenizer,
        how: TranscriptionOptions,
        spoken: float,
    ) -> tuple[list[dict[str, Any]], int, float]:
        """A window's segments, the frame at which the next begins, the second at which speech ended."""
        split: Callable[..., Any] = (
            self._split_segments_by_timestamps
        )  # it says it gives lists of int
        found, seek, said_all = split(
            tokenizer=tokenizer,
            tokens=written.tokens,
            time_offset=window.begin,
            segment_size=window.frames,
            segment_duration=window.seconds,
            seek=window.seek,
        )
        if not how.word_timestamps:
            return found, seek, spoken
        self.add_word_timestamps(
            [found], tokenizer, window.encoded, window.frames,
            how.prepend_punctuations, how.append_punctuations, last_speech_timestamp=spoken,
        )  # fmt: skip
        end = get_end(found)
        if end is None:
            return found, seek, spoken
        if not said_all and end > window.begin:
            seek = round(end * self.frames_per_second)
        return found, seek, end

    def get_prompt(
        self,
        tokenizer: Tokenizer,
        previous_tokens: list[int],
        without_timestamps: bool = False,  # noqa: FBT001, FBT002 - the parent's signature
        prefix: str | None = None,
        hotwords: str | None = None,
    ) -> list[int]:
        """As the parent's, with hotwords and earlier text sharing the room that it gives to each.

        Full, the two together are longer than the decoder's 448 positions. Hotwords get half of it
        even alone, so that a list means the same with a prompt and without.
        """
        if hotwords:
            room = self.max_length // 2 - 1
            hot = self._plain(tokenizer, hotwords)[: room // 2]
            previous_tokens = hot + previous_tokens[-(room - len(hot)) :]
        return super().get_prompt(tokenizer, previous_tokens, without_timestamps, prefix)

    def _plain(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """A caller's text as tokens; `<|de|>` written in it is no order to the decoder."""
        text = _sayable(text)
        tokens = tokenizer.encode(f" {text}") if text else []
        return [token for token in tokens if token < self.eot]


def _sayable(text: str) -> str:
    """What of a caller's text can be spoken; the rest only leads the decoder astray."""
    text = _ORDER.sub(" ", text)
    kept = (" " if unicodedata.category(sign) in _UNSAYABLE else sign for sign in text)
    return " ".join("".join(kept).split())


def _unsure(written: Written, options: Options) -> str | None:
    """Whether faster-whisper would try the next temperature, or take the window for silence."""
    repeats = written.compression_ratio > options.compression_ratio_threshold
    unlikely = written.log_probability < options.log_prob_threshold
    return "unsure" if repeats or unlikely else None


def _silent(written: Written, options: Options) -> bool:
    """Whether the text of a window was made up in silence."""
    return (
        written.no_speech > options.no_speech_threshold
        and written.log_probability <= options.log_prob_threshold
    )


def _segments(
    found: list[dict[str, Any]], written: Written, tokenizer: Tokenizer
) -> Iterator[RawSegment]:
    """Those of a window's segments that say something."""
    for segment in found:
        text = tokenizer.decode(segment["tokens"])
        if segment["start"] == segment["end"] or not text.strip():
            continue
        words = segment.get("words")
        yield RawSegment(
            id=0,  # counted where all windows come together
            seek=segment["seek"],
            start=segment["start"],
            end=segment["end"],
            text=text,
            tokens=segment["tokens"],
            temperature=written.temperature,
            avg_logprob=written.log_probability,
            compression_ratio=written.compression_ratio,
            no_speech_prob=written.no_speech,
            words=None if words is None else [RawWord(**word) for word in words],
        )


def _transcription_options(
    asked: Asked, options: Options, unsaid: list[int]
) -> TranscriptionOptions:
    return TranscriptionOptions(
        beam_size=asked.beam_size or options.beam_size,
        best_of=5,
        patience=1,
        length_penalty=1,
        repetition_penalty=1,
        no_repeat_ngram_size=0,
        log_prob_threshold=options.log_prob_threshold,
        no_speech_threshold=options.no_speech_threshold,
        compression_ratio_threshold=options.compression_ratio_threshold,
        condition_on_previous_text=options.condition_on_previous_text,
        prompt_reset_on_temperature=RESET,
        temperatures=list(
            options.temperatures if asked.temperature is None else (asked.temperature,)
        ),
        initial_prompt=None,
        prefix=None,
        suppress_blank=True,
        suppress_tokens=unsaid,
        without_timestamps=False,
        max_initial_timestamp=1.0,
        word_timestamps=asked.word_timestamps,
        prepend_punctuations="\"'“¿([{-",
        append_punctuations="\"'.。,，!！?？:：”)]}、",  # noqa: RUF001 - the full-width ones are meant
        multilingual=False,
        max_new_tokens=None,
        clip_timestamps="0",
        hallucination_silence_threshold=None,
        hotwords=", ".join(asked.hotwords) or None,
    )
