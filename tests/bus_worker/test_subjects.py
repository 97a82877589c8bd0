"""Every name on the bus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_worker.errors import BadRequest
from bus_worker.subjects import Subjects, job_id_of, model_token


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
        names.jobs("a", "high"),
        names.windows("a", "low"),
        names.webhooks,
        names.state("j", "status"),
        names.events("j"),
        names.dead("j"),
    ):
        assert subject.startswith("ears.")
    for stream in (
        names.claims_stream,
        names.jobs_stream,
        names.windows_stream,
        names.webhooks_stream,
        names.state_stream,
        names.events_stream,
        names.dead_stream,
    ):
        assert stream.startswith("EARS_")
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


@given(st.text(max_size=80))
def test_any_text_is_one_plain_job_id_or_refused(text):
    try:
        job_id_of(text)
    except BadRequest:
        return
    for subject in (Subjects().events(text), Subjects().dead(text)):
        assert subject.count(".") == 2
        assert subject.isascii()
        assert not set(subject) & set(" *>\r\n\t")


@pytest.mark.parametrize("subject", ["_INBOX.a.b", "stt.results.mine", "stt.results.a.b-c"])
def test_an_inbox_or_a_subject_for_results_may_be_told(subject):
    assert Subjects().may_tell(subject)


@pytest.mark.parametrize(
    "subject",
    [
        "", "_INBOX", "_INBOX.", "_INBOX.*", "_INBOX.a.>", "_INBOX..a", "_INBOX.a b", "_INBOX.a\r\nPUB x 0",
        "stt.results", "stt.results.", "stt.results.>", "stt.jobs.pretend.high", "other.results.a",
        "$JS.API.STREAM.DELETE.STT_JOBS", "_INBOXES.a", "stt.resultsX.a",
    ],
)  # fmt: skip
def test_nothing_else_may_be_told(subject):
    assert not Subjects().may_tell(subject)
