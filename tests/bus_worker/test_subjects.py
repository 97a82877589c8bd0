"""Every name on the bus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_worker.errors import BadRequest
from bus_worker.subjects import Subjects, model_token


def test_dots_become_underscores():
    assert Subjects().transcribe("tiny.en") == "stt.v1.transcribe.tiny_en"


def test_a_model_is_looked_up_beside_where_it_is_asked():
    assert Subjects().lookup("tiny.en") == "stt.v1.lookup.tiny_en"


def test_everything_stands_under_the_prefix():
    names = Subjects("ears")
    for subject in (
        names.transcribe("a"),
        names.transcribe_default,
        names.cancel,
        names.waiting,
        names.cache_clear,
    ):
        assert subject.startswith("ears.")
    assert names.discovery("PING") == ("$SRV.PING", "$SRV.PING.ears")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "*", ">", "a\r\nPUB x", "\x00", "ä"])
def test_a_strange_model_is_refused(name):
    with pytest.raises(BadRequest):
        model_token(name)


@given(st.text(max_size=60))
def test_any_text_is_one_plain_token_or_refused(text):
    try:
        token = model_token(text)
    except BadRequest:
        return
    assert token.replace("_", "a").replace("-", "a").isalnum()
    assert token.isascii()
