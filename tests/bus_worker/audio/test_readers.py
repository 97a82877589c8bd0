"""The libraries see memory and nothing else, and nothing a file says makes them fall."""

import functools
import io
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus_worker import audio
from bus_worker.errors import AudioTooLong, BadAudio
from tests.helpers.tones import FORMATS, encode, noise, tone, wav_bytes

ROOT = Path(__file__).resolve().parents[3]
WITHOUT_DESCRIPTORS = """
import io, os, resource, sys
from bus_worker import audio
from bus_worker.errors import BadAudio
from tests.helpers.tones import FORMATS, encode, tone
audio.warm_up()
files = {name: encode(tone(1, rate=48000), 48000, name) for name in FORMATS}
hostile = [bytes.fromhex(line) for line in sys.stdin.read().split()]
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    os.dup(0)
except OSError:
    print("none left")
print(*(name for name, data in files.items() if len(audio.decode(data)) >= 16000))
for data in hostile:
    try:
        audio.decode(data)
    except BadAudio as error:
        print(error)
"""


def wav_of(rate: int, channels: int, frames: int = 1600) -> bytes:
    """Sixteen-bit silence whose header claims this rate and these channels."""
    data = bytes(frames * channels * 2)
    numbers = (
        16,
        1 | channels << 16,
        rate,
        rate * channels * 2 % (1 << 32),
        channels * 2 % (1 << 16) | 16 << 16,
    )
    header = b"".join(number.to_bytes(4, "little") for number in numbers)
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt " + header + b"data" + len(data).to_bytes(4, "little") + data
    )


def pointing_at(path: str) -> bytes:
    """An mp4 whose track says that its samples lie in another file."""
    data = encode(tone(1), 16000, "mp4")
    name = path.encode()
    alias = bytes(10) + b"\0" + bytes(27) + bytes(12) + b"\0" + bytes(63) + bytes(16 + 4 + 16)
    alias += (2).to_bytes(2) + len(name).to_bytes(2) + name + bytes(len(name) % 2) + b"\xff\xff\0\0"
    entry = (12 + len(alias)).to_bytes(4) + b"alis" + bytes(4) + alias
    at = data.index(b"dref") + 12  # the one entry there is: 12 bytes, `url `, "in this file"
    changed = bytearray(data[:at] + entry + data[at + 12 :])
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size = data.index(box) - 4
        grown = int.from_bytes(data[size : size + 4]) + len(entry) - 12
        changed[size : size + 4] = grown.to_bytes(4)
    return bytes(changed)


def test_reading_opens_no_file_and_no_socket(tmp_path: Path):
    (tmp_path / "canary.wav").write_bytes(wav_bytes(tone(1)))
    hostile = [
        b"ffconcat version 1.0\nfile 'canary.wav'\n",
        b"#EXTM3U\n#EXTINF:1,\ncanary.wav\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 50004 RTP/AVP 0\n",
        b'<?xml version="1.0"?><MPD><Period/></MPD>',
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS],
        input="\n".join(data.hex() for data in hostile),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        timeout=50,
    )
    first, decoded, *refused = done.stdout.splitlines()
    assert first == "none left"
    assert tuple(decoded.split()) == FORMATS
    assert ["ffconcat" in refused[0], "HLS" in refused[1], "SDP" in refused[2]] == [True] * 3
    assert ["DASH" in refused[3], "SVG" in refused[4]] == [True] * 2


def test_ffmpeg_left_to_itself_would_have_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The bait works: without our sniffing the worker's own files can be heard."""
    (tmp_path / "canary.wav").write_bytes(wav_bytes(tone(1)))
    monkeypatch.chdir(tmp_path)
    bait = b"ffconcat version 1.0\nfile 'canary.wav'\n"
    with av.open(io.BytesIO(bait)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 16000
    with pytest.raises(BadAudio, match="an ffconcat list"):
        audio.decode(bait)


def test_an_mp4_that_points_at_another_file_does_not_get_it(tmp_path: Path):
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(encode(tone(1), 16000, "mp4"))  # the very bytes that the track asks for
    with pytest.raises(BadAudio, match="there is no sound in the mp4"):
        audio.decode(pointing_at(str(canary)))


def test_were_ffmpeg_to_follow_a_pointer_it_would_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(encode(tone(1), 16000, "mp4"))
    data, real = pointing_at(str(canary)), av.open
    follow = {"enable_drefs": "1", "use_absolute_path": "1"}
    with real(io.BytesIO(data), format="mov", options=follow) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 16000  # the bait works
    monkeypatch.setattr(av, "open", lambda *args, **kw: real(*args, **kw, options=follow))
    with pytest.raises(BadAudio, match="refers to another file"):
        audio.decode(data)


@pytest.mark.parametrize("rate", [0, 1, 100, 3999, 384_001, 655_350, 4_000_000_000])
def test_an_absurd_rate_is_refused(rate: int):
    with pytest.raises(BadAudio):
        audio.decode(wav_of(rate, 1))


@pytest.mark.parametrize("channels", [0, 33, 1000, 65535])
def test_an_absurd_number_of_channels_is_refused(channels: int):
    with pytest.raises(BadAudio):
        audio.decode(wav_of(16000, channels, 160))


@pytest.mark.parametrize(("rate", "channels"), [(4000, 1), (384_000, 1), (16000, 32)])
def test_the_widest_that_is_read(rate: int, channels: int):
    assert len(audio.decode(wav_of(rate, channels, rate))) == audio.SAMPLE_RATE


def test_a_file_without_samples_is_bad_audio():
    with pytest.raises(BadAudio, match="there is no sound in the wav"):
        audio.decode(wav_of(16000, 1, frames=0))


def test_a_video_beside_the_sound_is_left_alone():
    out = io.BytesIO()
    with av.open(out, "w", format="webm") as container:
        video = container.add_stream("libvpx", rate=10, width=64, height=64)
        sound = container.add_stream("libopus", rate=48000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))
        for number in range(10):
            picture.pts = number
            container.mux(video.encode(picture))
            frame = av.AudioFrame.from_ndarray(
                tone(0.1, rate=48000)[None], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 48000, number * 4800
            container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    assert len(audio.decode(out.getvalue())) == pytest.approx(16000, abs=400)


def test_a_video_without_sound_is_bad_audio():
    out = io.BytesIO()
    with av.open(out, "w", format="webm") as container:
        video = container.add_stream("libvpx", rate=10, width=64, height=64)
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        container.mux(video.encode(None))
    with pytest.raises(BadAudio, match="there is no sound in the webm"):
        audio.decode(out.getvalue())


def test_a_codec_that_is_not_on_the_list_is_named():
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("ac3", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5, rate=48000)[None], "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BadAudio, match="webm with ac3 sound is not read"):
        audio.decode(out.getvalue())


def test_alac_is_read_but_not_in_frames_of_minutes():
    out = io.BytesIO()
    with av.open(out, "w", format="ipod") as container:
        stream = container.add_stream("alac", rate=16000, layout="mono", format="s16p")
        frame = av.AudioFrame.from_ndarray((tone(0.25)[None] * 32767).astype("i2"), "s16p", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = out.getvalue()
    np.testing.assert_allclose(audio.decode(data), tone(0.25), atol=1e-3)
    at = data.index(b"alac", data.index(b"alac") + 4) + 8
    assert int.from_bytes(data[at : at + 4]) == 4096
    wide = data[:at] + (1 << 24).to_bytes(4) + data[at + 4 :]
    with pytest.raises(BadAudio, match="alac"):
        audio.decode(wide)


def test_a_damaged_packet_is_left_out_and_the_rest_is_heard():
    data = bytearray(encode(noise(3), 16000, "aac"))
    middle = data.index(b"\xff\xf1", len(data) // 2)
    data[middle + 9 : middle + 60] = b"\xff" * 51
    heard = audio.decode(bytes(data))
    assert 2.7 < len(heard) / audio.SAMPLE_RATE < 3.3


def test_mostly_damaged_packets_are_bad_audio():
    data = bytearray(encode(noise(3), 16000, "mp4"))
    start = data.index(b"mdat") + 4
    data[start : start + 20_000] = b"\xff" * 20_000
    with pytest.raises(BadAudio, match="packets are damaged"):
        audio.decode(bytes(data))


@pytest.mark.parametrize("format_", FORMATS)
def test_no_library_writes_on_stderr_about_damaged_sound(
    format_: str, capfd: pytest.CaptureFixture[str]
):
    data = bytearray(encode(noise(2, rate=48000), 48000, format_))
    for at in range(len(data) // 2, len(data), 500):
        data[at] ^= 0xFF
    try:
        heard = len(audio.decode(bytes(data)))
    except BadAudio as error:
        heard = len(error.message)
    assert heard
    assert capfd.readouterr() == ("", "")


@functools.cache
def sample(format_: str) -> bytes:
    return encode(noise(1.2, rate=16000), 16000, format_)


def survives(data: bytes) -> None:
    """Whatever it is: samples, or one of the three refusals, soon."""
    start = time.perf_counter()
    try:
        samples = audio.decode(data, max_duration=10)
    except (BadAudio, AudioTooLong):
        samples = np.ones(1, np.float32)
    assert np.isfinite(samples).all()
    assert len(samples)
    assert time.perf_counter() - start < 5


MARKS = [b"", b"RIFF\xff\xff\xff\xffWAVE", b"fLaC", b"OggS\0\2", b"\x1aE\xdf\xa3", b"ID3\4\0\0"]
MARKS += [b"\0\0\0\x18ftypM4A ", b"\xff\xfb\x90", b"\xff\xf1\x60\x40"]
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(mark=st.sampled_from(MARKS), tail=st.binary(max_size=2000))
def test_random_bytes_behind_any_mark_are_survived(mark: bytes, tail: bytes):
    survives(mark + tail)


@FEW
@given(
    format_=st.sampled_from(FORMATS),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.booleans(), st.binary(min_size=1, max_size=9)), max_size=12
    ),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_real_files_with_random_changes_are_survived(
    format_: str, edits: list[tuple[float, bool, bytes]], cut: float | None
):
    data = bytearray(sample(format_))
    for place, in_header, new in edits:
        at = int(place * (min(len(data), 1200) if in_header else len(data)))
        data[at : at + len(new)] = new
    survives(bytes(data) if cut is None else bytes(data[: int(cut * len(data))]))
