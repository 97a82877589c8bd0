"""One clip through the model, in a thread: where the speech is, in which language, what was said.

Importing this imports faster-whisper (half a second), so the engine does it while it loads. We call
the steps of its `transcribe` ourselves: that one encodes the first window twice where the language
is detected, and goes through voice activity detection where nobody can see what it left.
"""

import copy
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import _LANGUAGE_CODES, Tokenizer
from faster_whisper.transcribe import Segment as RawSegment
from faster_whisper.transcribe import TranscriptionOptions, get_suppressed_tokens
from faster_whisper.transcribe import Word as RawWord
from faster_whisper.vad import VadOptions, get_speech_timestamps

from bus_worker.messages import Segment, Word
from bus_worker.plugin import SAMPLE_RATE, Draft, Samples
from bus_worker.plugin import Options as Asked
from plugins.whisper.options import Options
from plugins.whisper.utterances import (
    CUT_OVER,
    PAUSE_MS,
    Span,
    Utterance,
    covering,
    cut,
    whole,
)

_RESET = 0.5
"""Text decoded at a higher temperature than this is not shown to the decoder again."""
_ORDER = re.compile(r"<\|[^|>]*\|>")
"""How an order to the decoder is written."""
_UNSAYABLE = frozenset({"Cc", "Cn", "Co", "Cs"})
"""Control characters, and code points that are no characters (joiners, "Cf", spell words)."""


class Window(NamedTuple):
    """Log-mel features of what is to be decoded, its first 30 s encoded."""

    features: Any
    encoded: Any


class Language(NamedTuple):
    """A language and how probable the model found it; unsure: it is the operator's default."""

    code: str
    probability: float
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in a clip; no language where no words were."""

    segments: list[Segment]
    language: Language | None = None


class _Watched:
    """CTranslate2's model as one caller's thread has it: out of reach once nobody waits.

    A window may be decoded at six temperatures before there is a segment. Each try is one call,
    and no call can be stopped: base on one slow core writes all of its 224 tokens in 4 to 8 s.
    """

    def __init__(self, model: Any, check: Callable[[], None]) -> None:
        self._model = model
        self._check = check

    def __getattr__(self, name: str) -> Any:
        self._check()
        return getattr(self._model, name)


class Decoder(WhisperModel):
    """faster-whisper's model, a step at a time; safe from several threads.

    Read in its source: features, tokenizer and voice activity detection keep nothing between calls,
    CTranslate2 hands each call to a replica, and lets go of the interpreter's lock meanwhile.
    """

    @functools.cached_property
    def eot(self) -> int:
        """The first token that is no text."""
        return int(self.hf_tokenizer.token_to_id("<|endoftext|>") or 0)

    def watched(self, check: Callable[[], None]) -> Self:
        """The same model for one caller: `check` is called before each of its steps, and may raise."""
        watched = copy.copy(self)
        watched.model = _Watched(self.model, check)
        return watched

    def languages(self) -> frozenset[str]:
        """The languages it knows; `base` has no token for some that `large-v3` has."""
        if not self.model.is_multilingual:
            return frozenset({"en"})
        known = self.hf_tokenizer.token_to_id
        return frozenset(code for code in _LANGUAGE_CODES if known(f"<|{code}|>") is not None)

    def warm(self) -> None:
        """Pay for every first call on a second of silence; a full window would cost ten times that."""
        window = self.listen(np.zeros(SAMPLE_RATE, np.float32), frames=100)
        if self.model.is_multilingual:
            self.model.detect_language(window.encoded)
        tokenizer = Tokenizer(
            self.hf_tokenizer, self.model.is_multilingual, task="transcribe", language="en"
        )
        prompt = self.get_prompt(tokenizer, tokenizer.encode(" warm"))
        self.model.generate(window.encoded, [prompt], beam_size=5, max_length=len(prompt) + 8)

    def listen(self, samples: Samples, *, frames: int | None = None) -> Window:
        """Features of samples, and their first window through the encoder."""
        features = self.feature_extractor(samples)
        content = features[:, : min(features.shape[-1] - 1, self.feature_extractor.nb_max_frames)]
        length = frames or self.feature_extractor.nb_max_frames
        return Window(features, self.encode(pad_or_trim(content, length)))

    def detect(self, window: Window, options: Options) -> Language:
        """The language of a window, or the operator's default where the model is unsure."""
        if not self.model.is_multilingual:
            return Language("en", 1.0)
        found = self.model.detect_language(window.encoded)[0]  # [("<|en|>", 0.98), …], best first
        odds = {token[2:-2]: probability for token, probability in found}
        best = next(iter(odds))
        if odds[best] >= options.language_threshold:
            return Language(best, odds[best])
        return Language(
            options.default_language, odds.get(options.default_language, 0.0), sure=False
        )

    def decode(
        self, window: Window, language: str, asked: Asked, options: Options, earlier: list[int]
    ) -> Iterable[RawSegment]:
        """Segments as they are decoded: the work is done where they are taken."""
        tokenizer = Tokenizer(
            self.hf_tokenizer, self.model.is_multilingual, task=asked.task, language=language
        )
        prompt = [*self._plain(tokenizer, asked.prompt or ""), *earlier]
        how = _transcription_options(tokenizer, prompt, asked, options)
        return self.generate_segments(
            window.features, tokenizer, how, log_progress=False, encoder_output=window.encoded
        )

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


def _transcription_options(
    tokenizer: Tokenizer, prompt: list[int], asked: Asked, options: Options
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
        prompt_reset_on_temperature=_RESET,
        temperatures=list(
            options.temperatures if asked.temperature is None else (asked.temperature,)
        ),
        initial_prompt=prompt or None,
        prefix=None,
        suppress_blank=True,
        suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),  # type: ignore[arg-type]  # it says tuple, wants list
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


def hear(decoder: Decoder, draft: Draft, options: Options) -> Heard:
    """Everything said in the draft's samples; each segment is told to a caller who streams.

    Raises:
        Cancelled, DeadlineExceeded: nobody waits any more; looked at before every segment,
            and before every step of the model.
    """
    assert draft.samples is not None  # noqa: S101 - for the type checker; the stage needs "samples"
    decoder = decoder.watched(draft.check)
    utterances = _utterances(draft, draft.samples, options)
    language = Language(draft.options.language, 1.0) if draft.options.language else None
    segments: list[Segment] = []
    earlier: list[int] = []
    for utterance in utterances:
        draft.check()
        with draft.span("encode"):
            window = decoder.listen(utterance.samples(draft.samples))
        if language is None:
            language = decoder.detect(window, options)
        for raw in decoder.decode(window, language.code, draft.options, options, earlier):
            draft.check()
            segment = _placed(raw, utterance, segments)
            segments.append(segment)
            earlier = _carried(earlier, raw, decoder.eot)
            if draft.stream:
                draft.emit(segment)
    return Heard(segments, language if segments else None)


def _carried(earlier: list[int], raw: RawSegment, eot: int) -> list[int]:
    """What the next piece is shown of the text before it; nothing that was hard to decode."""
    if (raw.temperature or 0) > _RESET:
        return []
    return earlier + [token for token in raw.tokens if token < eot]


def _utterances(draft: Draft, samples: Samples, options: Options) -> list[Utterance]:
    """What to decode: all speech at once, or a longer clip that is streamed a piece at a time."""
    length, everything = len(samples), [Span(0, len(samples))]
    if not length:
        return []
    vad = options.vad if draft.options.vad is None else draft.options.vad
    pieces = draft.stream and length > CUT_OVER * SAMPLE_RATE
    if not vad and not pieces:
        return whole(everything, length)
    silence_ms = options.vad_min_silence_ms
    with draft.span("vad"):
        speech = find_speech(
            samples, options.vad_threshold, min(silence_ms, PAUSE_MS) if pieces else silence_ms
        )
    if vad:
        return cut(speech, length) if pieces else whole(speech, length)
    return covering(cut(speech or everything, length), length)


def find_speech(samples: Samples, threshold: float, min_silence_ms: int) -> list[Span]:
    """Where someone speaks."""
    found = get_speech_timestamps(
        samples,
        VadOptions(threshold=threshold, min_silence_duration_ms=min_silence_ms, speech_pad_ms=0),
    )
    return [Span(int(speech["start"]), int(speech["end"])) for speech in found]


def _placed(raw: RawSegment, utterance: Utterance, before: list[Segment]) -> Segment:
    """A segment with the clip's own times: in order, within the utterance, rounded for the wire."""
    earliest, latest = before[-1].end if before else 0.0, utterance.end

    def fit(seconds: float) -> float:
        return min(max(round(float(seconds), 2), earliest), latest)

    words = None if raw.words is None else _words(raw.words, utterance, fit)
    start, end = map(fit, utterance.between(raw.start, raw.end))
    if words:
        start, end = words[0].start, words[-1].end
    return Segment(
        id=len(before),
        seek=round(100 * utterance.at(raw.seek / 100)),
        start=start,
        end=max(start, end),
        text=raw.text,
        tokens=list(raw.tokens),
        confidence=round(float(raw.avg_logprob), 3),
        no_speech_prob=round(float(raw.no_speech_prob), 3),
        compression_ratio=round(float(raw.compression_ratio), 3),
        temperature=float(raw.temperature or 0),
        words=words,
    )


def _words(raw: list[RawWord], utterance: Utterance, fit: Callable[[float], float]) -> list[Word]:
    words: list[Word] = []
    for word in raw:
        # Moved by its middle: a word that a joint runs through lies on one side of it.
        middle = (word.start + word.end) / 2
        moved = utterance.at(middle) - middle
        start = max(fit(word.start + moved), words[-1].end if words else 0.0)
        end = max(start, fit(word.end + moved))
        words.append(Word(word.word, start, end, round(float(word.probability), 3)))
    return words
