"""From bytes to mono samples at whatever rate they came: soundfile, and FFmpeg where it cannot.

Neither gets a name to open, only a `Source`; FFmpeg gets the one demuxer that the bytes' own marks
name, the codecs below and no way to open anything else.
"""

from collections.abc import Generator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from bus_worker.audio.sniff import Kind
from bus_worker.audio.source import Source
from bus_worker.errors import BadAudio

__all__ = ["read_pieces"]

Mono = npt.NDArray[np.float32]
Piece = tuple[int, Mono]
"""A rate and some samples at it."""

PIECE_SECONDS = 0.25
SOUNDFILE = {"wav", "flac", "ogg", "opus"}
"""Mp3 is FFmpeg's: libsndfile's mpg123 writes a line on stderr for each damaged frame."""
CODECS = (
    *("aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis", "speex"),
    *("gsm", "gsm_ms", "adpcm_ima_wav", "adpcm_ms", "adpcm_g726", "pcm_alaw", "pcm_mulaw"),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
    *("pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
)
"""FFmpeg's decoders that may run: a video track beside the sound is never decoded."""
DTYPES = {"u8": np.uint8, "s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
"""What FFmpeg calls the samples that those codecs give, with a `p` where channels lie apart."""
RATES = (4_000, 384_000)
MAX_CHANNELS = 32
MAX_FRAME = 1 << 16
"""Samples of the longest frame of any codec (FLAC's); ALAC's header could ask for 256 times that."""


def read_pieces(kind: Kind, source: Source) -> Generator[Piece]:
    """The samples in pieces of about a quarter of a second, mixed down to mono.

    Raises:
        BadAudio: nothing can be read, or the file breaks off.
    """
    if kind.name in SOUNDFILE:
        sound = _open_soundfile(source)
        if sound is not None:
            with sound:
                yield from _soundfile_pieces(kind, sound)
            return
        source.seek(0)
    yield from _gathered(_ffmpeg_pieces(kind, source))


def _broken(kind: Kind, why: str = "") -> BadAudio:
    reason = f": {why}" if why else ""
    return BadAudio(f"the {kind.name} is broken{reason}", seen=f"a broken {kind.name}")


def _breaks_off(kind: Kind, done: int, promised: int) -> BadAudio:
    return BadAudio(
        f"the {kind.name} is broken or cut short: "
        f"it breaks off after {done} of the {promised} samples that its header promises",
        seen=f"a broken {kind.name}",
    )


def _check_shape(kind: Kind, rate: int, channels: int) -> None:
    low, high = RATES
    if not low <= rate <= high:
        raise BadAudio(
            f"the {kind.name} claims {rate} samples a second; {low} to {high} are read", rate=rate
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise BadAudio(
            f"the {kind.name} claims {channels} channels; 1 to {MAX_CHANNELS} are read",
            channels=channels,
        )


def _open_soundfile(source: Source) -> Any:
    """The file as soundfile sees it; None if it cannot read it, or sees nothing in it."""
    import soundfile  # noqa: PLC0415 - paid at `warm_up`, not by who only lists the stages

    class Forward(soundfile.SoundFile):
        """Reads on without seeking.

        soundfile seeks to where it already is at every read: that halved FLAC's speed, and
        changed the samples of an Opus clip (measured).
        """

        def seekable(self) -> bool:
            return False

    try:
        opened: Any = source  # as much of a file as it asks for
        sound = Forward(opened)
    except soundfile.SoundFileError:
        return None
    if sound.frames:
        return sound
    sound.close()  # a WAV written to a pipe may say 0 bytes and mean "unknown"; FFmpeg knows
    return None


def _soundfile_pieces(kind: Kind, sound: Any) -> Generator[Piece]:
    import soundfile  # noqa: PLC0415 - as above

    rate, done = sound.samplerate, 0
    _check_shape(kind, rate, sound.channels)
    while True:
        try:
            block = sound.read(int(rate * PIECE_SECONDS), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as exc:
            raise _breaks_off(kind, done, sound.frames) from exc
        if not len(block):
            break
        done += len(block)
        yield rate, _mixed(block.T)
    if kind.name == "flac" and done < sound.frames < 1 << 48:  # above: a live FLAC's "unknown"
        raise _breaks_off(kind, done, sound.frames)


def _refuse_to_open(*_: object) -> NoReturn:
    raise BadAudio("the audio refers to another file, which is never opened")


def _ffmpeg_pieces(kind: Kind, source: Source) -> Generator[Piece]:
    import av  # noqa: PLC0415 - paid at `warm_up`

    try:
        with av.open(
            source,
            "r",
            format=kind.demuxer,
            container_options={"codec_whitelist": ",".join(CODECS), "max_streams": "32"},
            metadata_errors="replace",
            io_open=_refuse_to_open,
        ) as container:
            yield from _decoded(kind, container)
    except av.FFmpegError as exc:
        raise _broken(kind, exc.strerror or "") from exc


def _decoded(kind: Kind, container: Any) -> Generator[Piece]:
    """Decode the first track of sound; a damaged packet here and there is left out."""
    import av  # noqa: PLC0415 - as above

    stream = next(iter(container.streams.audio), None)
    if stream is None:
        raise BadAudio(f"there is no sound in the {kind.name}", seen=f"a {kind.name} without sound")
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if codec not in CODECS or (codec == "alac" and _wide_alac(stream.codec_context.extradata)):
        raise BadAudio(f"{kind.name} with {codec} sound is not read", codec=codec)
    good, bad = 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            bad += 1
            continue
        good += 1
        for frame in filter(_has_samples, frames):
            _check_shape(kind, frame.sample_rate, frame.layout.nb_channels)
            yield frame.sample_rate, _mono(frame)
    if bad > 1 + good // 10:
        raise _broken(kind, f"{bad} of {bad + good} packets are damaged")


def _has_samples(frame: Any) -> bool:
    return bool(frame.samples)


def _wide_alac(extradata: bytes | None) -> bool:
    """Whether ALAC's header asks for frames that would unpack to minutes of sound at once."""
    return int.from_bytes((extradata or b"")[12:16]) > MAX_FRAME


def _mono(frame: Any) -> Mono:
    """One frame of FFmpeg's as mono.

    Not by `frame.to_ndarray()`: PyAV 18.1 counts a frame's planes until it meets a null pointer,
    and eight channels leave no room for one. A plain 7.1 mp4 ended the process (SIGSEGV).
    """
    name, channels = frame.format.name, frame.layout.nb_channels
    dtype = np.dtype(DTYPES[name.removesuffix("p")])
    if name.endswith("p"):
        mixed = _mixed([_plane(frame, i, dtype, frame.samples) for i in range(channels)])
    else:
        mixed = _mixed(_plane(frame, 0, dtype, frame.samples * channels).reshape(-1, channels).T)
    full = np.float32(1 << 8 * dtype.itemsize - 1)
    if dtype.kind == "u":
        return (mixed - full) / full
    return mixed / full if dtype.kind == "i" else mixed


def _plane(frame: Any, index: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    from av.audio.plane import AudioPlane  # noqa: PLC0415 - as above

    buffer: Any = AudioPlane(frame, index)
    return np.frombuffer(buffer, dtype, count)


def _mixed(channels: Sequence[npt.NDArray[Any]] | npt.NDArray[Any]) -> Mono:
    """All channels as one, as float32.

    Not by `mean`: over channels that lie side by side it took 3 s for an hour, more than reading it.
    """
    mixed = np.array(channels[0], dtype=np.float32)
    if len(channels) > 1:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not a number is refused later
            for channel in channels[1:]:
                mixed += channel.astype(np.float32, copy=False)
            mixed /= np.float32(len(channels))
    return mixed


def _gathered(pieces: Generator[Piece]) -> Generator[Piece]:
    """FFmpeg's frames of some 20 ms, joined to pieces worth a turn of the loop."""
    held: list[Mono] = []
    held_rate, length = 0, 0
    for rate, mono in pieces:
        if held and (rate != held_rate or length >= rate * PIECE_SECONDS):
            yield held_rate, np.concatenate(held)
            held, length = [], 0
        held_rate = rate
        held.append(mono)
        length += len(mono)
    if held:
        yield held_rate, np.concatenate(held)
