"""Audio made at test time: tones, and the same samples in every format that callers send."""

import io
import tempfile

import av
import numpy as np
import numpy.typing as npt
import soundfile
from av.audio.plane import AudioPlane

Samples = npt.NDArray[np.float32]

SOUNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "wav-pcm24": ("WAV", "PCM_24"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-ulaw": ("WAV", "ULAW"),
    "wav-extensible": ("WAVEX", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
FFMPEG: dict[str, tuple[str, str, dict[str, str]]] = {
    "webm": ("webm", "libopus", {}),
    "webm-live": ("webm", "libopus", {"live": "1"}),  # as MediaRecorder: no duration, no cues
    "m4a": ("ipod", "aac", {}),
    "mp4": ("mp4", "aac", {}),
    "mp4-faststart": ("mp4", "aac", {"movflags": "faststart"}),
    "mp4-fragmented": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "aac": ("adts", "aac", {}),
}
FORMATS = (*SOUNDFILE, *FFMPEG)
"""Every name that `encode` takes; what stands before the dash is what the format is called."""


def tone(seconds: float, hz: float = 440, rate: int = 16000, level: float = 0.5) -> Samples:
    """A sine, mono."""
    time = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def noise(seconds: float, rate: int = 16000, level: float = 0.1, seed: int = 0) -> Samples:
    """White noise whose RMS is `level`, mono; the same every time."""
    samples = np.random.default_rng(seed).standard_normal(round(seconds * rate))
    return (level * samples).astype(np.float32)


def wav_bytes(samples: Samples, rate: int = 16000) -> bytes:
    """Samples, shape (n,) or (n, channels), as a 16-bit WAV file."""
    return encode(samples, rate, "wav")


def encode(samples: Samples, rate: int, format: str) -> bytes:  # noqa: A002 - the natural word
    """Samples, shape (n,) or (n, channels), as a file of a format in `FORMATS`.

    Opus needs a rate of 8, 12, 16, 24 or 48 kHz.
    """
    if format in SOUNDFILE:
        out = io.BytesIO()
        kind, subtype = SOUNDFILE[format]
        soundfile.write(out, samples, rate, format=kind, subtype=subtype)
        return out.getvalue()
    return _encode_by_ffmpeg(samples, rate, *FFMPEG[format])


def _encode_by_ffmpeg(
    samples: Samples, rate: int, muxer: str, codec: str, options: dict[str, str]
) -> bytes:
    planes = np.ascontiguousarray(np.atleast_2d(samples.T))
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[len(planes)]
    with tempfile.NamedTemporaryFile() as file:  # `faststart` opens its own output again
        _mux(file.name, planes, layout, rate, (muxer, codec, options))
        return file.read()


def _mux(
    path: str,
    planes: Samples,
    layout: str,
    rate: int,
    how: tuple[str, str, dict[str, str]],
) -> None:
    muxer, codec, options = how
    with av.open(path, "w", format=muxer, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, planes.shape[1], 4096):
            block = np.ascontiguousarray(planes[:, start : start + 4096])
            frame = av.AudioFrame(format="fltp", layout=layout, samples=block.shape[1])
            for index, channel in enumerate(block):  # not by from_ndarray: 8 channels crash it
                AudioPlane(frame, index).update(channel)
            frame.sample_rate = rate
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
