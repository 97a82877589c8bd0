"""What a caller may ask, and how a refusal names the field."""

import math
import re
import time
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_worker.errors import BadRequest
from bus_worker.messages import MAX_CHUNKS, MIN_CHUNK, pack
from bus_worker.requests import Options, TranscribeRequest, read_lookup, read_request
from bus_worker.subjects import Subjects

CLAIM = {"id": "0123456789abcdef" * 2, "chunks": 12, "size": 10_000_000, "sha256": "f" * 64}


def test_a_ticket_stands_for_audio():
    for body in ({"claim": CLAIM}, {"claim": CLAIM, "stream": True}):
        claim = read_request(pack(body)).claim
        assert claim is not None
        assert asdict(claim.ticket()) == CLAIM
    assert read_request(pack({"audio": b"", "claim": None})).claim is None


def test_audio_alone_is_a_request():
    request = read_request(pack({"audio": b"x"}))
    assert request == TranscribeRequest(audio=b"x")
    assert request.options == Options()


def test_everything_the_contract_lists_is_taken():
    options = {
        "language": "de", "task": "translate", "prompt": "p", "hotwords": ["a"], "temperature": 0,
        "beam_size": 2, "word_timestamps": True, "vad": False,
    }  # fmt: skip
    request = read_request(
        pack(
            {
                "audio": b"x", "format": "audio/wav", "options": options,
                "stages": {"gain": {"gain": 2.0}}, "cache": False, "stream": True,
            }
        )
    )  # fmt: skip
    assert request.options.temperature == 0.0
    assert request.stages == {"gain": {"gain": 2.0}}
    assert request.stream
    assert not request.cache


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "'audio'"),
        ({"audio": "text"}, "'audio'"),
        ({"audio": None}, "'audio'"),
        ({"audio": b"x", "sneaky": 1}, "unknown field 'sneaky'"),
        ({"audio": b"x", "options": {"sneaky": 1}}, "unknown field 'options.sneaky'"),
        ({"audio": b"x", "options": {"language": "English"}}, "'options.language'"),
        ({"audio": b"x", "options": {"language": 5}}, "'options.language'"),
        ({"audio": b"x", "options": {"task": "sing"}}, "'options.task'"),
        ({"audio": b"x", "options": {"temperature": math.nan}}, "'options.temperature'"),
        ({"audio": b"x", "options": {"temperature": 2}}, "'options.temperature'"),
        ({"audio": b"x", "options": {"temperature": "0"}}, "'options.temperature'"),
        ({"audio": b"x", "options": {"beam_size": 0}}, "'options.beam_size'"),
        ({"audio": b"x", "options": {"beam_size": 10**9}}, "'options.beam_size'"),
        ({"audio": b"x", "options": {"beam_size": True}}, "'options.beam_size'"),
        ({"audio": b"x", "options": {"beam_size": 2.0}}, "'options.beam_size'"),
        ({"audio": b"x", "options": {"prompt": "x" * 5000}}, "'options.prompt'"),
        ({"audio": b"x", "options": {"hotwords": "word"}}, "'options.hotwords'"),
        ({"audio": b"x", "options": {"hotwords": [""]}}, "'options.hotwords.0'"),
        ({"audio": b"x", "options": {"hotwords": ["a"] * 300}}, "'options.hotwords'"),
        ({"audio": b"x", "options": {"vad": 1}}, "'options.vad'"),
        ({"audio": b"x", "stages": []}, "'stages'"),
        ({"audio": b"x", "stages": {"a": 1}}, "'stages.a'"),
        ({"audio": b"x", "stream": "yes"}, "'stream'"),
        ({"audio": b"x", "format": b"wav"}, "'format'"),
        ({"audio": b"x", "claim": CLAIM}, "either 'audio' or 'claim'"),
        ({"audio": None, "claim": CLAIM}, "either 'audio' or 'claim'"),
        ({"claim": None}, "either 'audio' or 'claim'"),
        ({"claim": CLAIM["id"]}, "'claim'"),
        ({"claim": {**CLAIM, "sneaky": 1}}, "unknown field 'claim.sneaky'"),
        ({"claim": {k: v for k, v in CLAIM.items() if k != "sha256"}}, "'claim.sha256'"),
        *(
            ({"claim": {**CLAIM, "id": wrong}}, "'claim.id'")
            for wrong in (
                "*",
                ">",
                "../x",
                "a.b",
                "",
                "0" * 31,
                "0" * 33,
                "0" * 31 + "*",
                "0" * 32 + "\n",
                "A" * 32,
                "0" * 30 + ".>",
                b"0" * 32,
                5,
                None,
                ["0" * 32],
            )
        ),
        ({"claim": {**CLAIM, "chunks": 0}}, "'claim.chunks'"),
        ({"claim": {**CLAIM, "chunks": True}}, "'claim.chunks'"),
        ({"claim": {**CLAIM, "chunks": 10**6}}, "'claim.chunks'"),
        ({"claim": {**CLAIM, "size": 0}}, "'claim.size'"),
        ({"claim": {**CLAIM, "size": -1}}, "'claim.size'"),
        ({"claim": {**CLAIM, "size": 2**64 - 1}}, "'claim.size'"),
        ({"claim": {**CLAIM, "size": 1.5}}, "'claim.size'"),
        ({"claim": {**CLAIM, "sha256": "g" * 64}}, "'claim.sha256'"),
        ({"claim": {**CLAIM, "sha256": bytes(32)}}, "'claim.sha256'"),
    ],
)
def test_a_wrong_field_is_named(body, says):
    with pytest.raises(BadRequest) as caught:
        read_request(pack(body))
    assert says in caught.value.message
    assert len(caught.value.message) < 600


def test_a_refusal_never_echoes_what_was_sent():
    with pytest.raises(BadRequest) as caught:
        read_request(pack({"audio": b"x", "options": {"language": "my-secret"}}))
    assert "my-secret" not in caught.value.message


wire = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.binary(),
        st.text(),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["audio", "claim", "options", "stages", "stream", "format", "x"]), wire
    )
)
def test_any_map_is_a_request_or_refused_by_name(body):
    try:
        payload = pack(body)
    except UnicodeEncodeError:
        return
    refused = ""
    try:
        read_request(payload)
    except BadRequest as error:
        refused = error.message
    assert "'" in refused or refused == ""


nearly = st.fixed_dictionaries(
    {
        "id": st.one_of(wire, st.text("0123456789abcdef*>. ", min_size=30, max_size=34)),
        "chunks": st.one_of(wire, st.integers(-1, 10**5)),
        "size": st.one_of(wire, st.integers(-1, 10**9)),
        "sha256": st.one_of(wire, st.text("0123456789abcdef", min_size=64, max_size=64)),
    }
)
sound = st.fixed_dictionaries(
    {
        "id": st.text("0123456789abcdef", min_size=32, max_size=32),
        "chunks": st.integers(1, 10**5),
        "size": st.integers(1, 10**9),
        "sha256": st.text("0123456789abcdef", min_size=64, max_size=64),
    }
)


@given(st.one_of(nearly, sound))
def test_a_ticket_is_bounded_and_stays_under_its_subject_or_is_refused(claim):
    try:
        payload = pack({"claim": claim})
    except UnicodeEncodeError:
        return
    refused, request = "", None
    try:
        request = read_request(payload)
    except BadRequest as error:
        refused = error.message
    if request is None or request.claim is None:
        assert "'" in refused
        return
    ticket = request.claim.ticket()
    assert asdict(ticket) == claim
    assert 1 <= ticket.chunks <= min(MAX_CHUNKS, 1 + ticket.size // MIN_CHUNK)
    subject = Subjects().claim(ticket.id, ticket.chunks - 1)
    assert re.fullmatch(r"stt\.claims\.[0-9a-f]{32}\.\d+", subject)


def test_a_field_s_name_reaches_nobody_s_terminal_as_it_is():
    with pytest.raises(BadRequest) as caught:
        read_request(pack({"audio": b"x", "\x1b[2J\n\u202e": 1}))
    assert caught.value.message == r"unknown field '\x1b[2J\n\u202e'"


@pytest.mark.parametrize("name", ["options", "claim", "stages"])
def test_thousands_of_fields_are_refused_before_each_is_looked_at(name: str):
    fields = {f"{n:x}": 1 for n in range(9000)}
    audio = {} if name == "claim" else {"audio": b"x"}
    began = time.process_time()
    with pytest.raises(BadRequest, match=f"'{name}' has 32 fields at most, not 9000"):
        read_request(pack({**audio, name: fields}))
    assert time.process_time() - began < 0.1


def test_a_lookup_of_thousands_of_fields_is_refused_too():
    with pytest.raises(BadRequest, match="'stages' has 32 fields at most, not 9000"):
        read_lookup(pack({"sha256": "f" * 64, "stages": {f"{n:x}": 1 for n in range(9000)}}))


def test_a_refusal_names_three_fields_at_most():
    with pytest.raises(BadRequest) as caught:
        read_request(pack({"audio": b"x", **{f"x{n}": 1 for n in range(9)}}))
    assert caught.value.message.count("unknown field") == 3
