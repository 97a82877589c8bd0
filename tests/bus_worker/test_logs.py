"""One line per request, the request id on every line, JSON off a terminal."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bus_worker.cache import MemoryCache
from bus_worker.logs import set_up_logs
from bus_worker.messages import pack
from bus_worker.plugin import Draft, NoOptions, stage
from bus_worker.request_line import RequestLine
from tests.helpers.house import Workers


@pytest.fixture(autouse=True)
def logs_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    # A logger that is cached would speak in this form in every later test of the process.
    uncached = {"cache_logger_on_first_use": False}
    configure = structlog.configure
    monkeypatch.setattr(structlog, "configure", lambda **form: configure(**{**form, **uncached}))
    yield
    root.handlers[:], root.level = handlers, level
    configure(**before)


@stage(gives=("text",))
def chatty(draft: Draft, options: NoOptions) -> None:
    """Log from a thread, as a plugin may."""
    logging.getLogger("somebodys.plugin").warning("in a thread")
    draft.note("windows", 2)
    with draft.span("encode"):
        draft.text = "hi"


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_a_request_is_one_line_and_every_line_has_its_id(workers: Workers, capsys):
    set_up_logs("INFO", "json")
    await workers.start(chatty)
    client = await workers.client()
    await client.transcribe(b"abc", request_id="mine")
    said = [line for line in lines(capsys) if line.get("request_id") == "mine"]
    assert [line["event"] for line in said] == ["in a thread", "request"]
    request = said[1]
    assert [request[name] for name in ("lane", "outcome", "code")] == ["request", "ok", "ok"]
    assert [request[name] for name in ("model", "worker", "cache")] == ["pretend", "w1", "off"]
    assert request["windows"] == 2
    assert request["bytes"] > 3
    assert {
        "seconds",
        "queue",
        "stage_chatty",
        "span_encode",
        "audio",
        "timestamp",
        "level",
    } <= set(request)
    assert "hi" not in json.dumps(request)


async def test_the_line_says_what_the_cache_did(workers: Workers, capsys):
    set_up_logs("INFO", "json")
    await workers.start(chatty, cache=MemoryCache())
    client = await workers.client()
    for _ in range(2):
        await client.transcribe(b"abc")
    said = [line["cache"] for line in lines(capsys) if line["event"] == "request"]
    assert said == ["miss", "hit"]


async def test_the_words_are_in_the_log_only_where_they_were_asked_for(workers: Workers, capsys):
    set_up_logs("INFO", "json")
    await workers.start(chatty, line=RequestLine(show_text=True))
    client = await workers.client()
    await client.transcribe(b"abc")
    (request,) = [line for line in lines(capsys) if line["event"] == "request"]
    assert request["text"] == "hi"


async def test_a_refusal_is_one_line_too(workers: Workers, capsys):
    set_up_logs("INFO", "json")
    await workers.start(chatty)
    nc = (await workers.bus()).client
    await nc.request(
        "stt.v1.transcribe.pretend", pack({}), timeout=2, headers={"Stt-Request-Id": "r"}
    )
    (request,) = [line for line in lines(capsys) if line.get("request_id") == "r"]
    assert (request["event"], request["outcome"], request["code"]) == (
        "request",
        "error",
        "bad_request",
    )
    assert request["level"] == "info"


async def test_a_line_break_in_an_id_makes_no_line(workers: Workers, capsys):
    set_up_logs("INFO", "console")
    await workers.start(chatty)
    client = await workers.client()
    await client.transcribe(b"abc", request_id="a\nforged")
    assert not any(line.startswith("forged") for line in capsys.readouterr().err.splitlines())


def test_the_level_holds(capsys):
    set_up_logs("WARNING", "json")
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_an_exception_is_part_of_its_line(capsys):
    set_up_logs("INFO", "json")
    try:
        raise ValueError("inside")  # noqa: TRY301 - the line under test needs one
    except ValueError:
        structlog.get_logger("x").exception("oops")
    (line,) = lines(capsys)
    assert "ValueError: inside" in line["exception"]


def test_a_traceback_on_a_terminal_shows_no_variables(capsys):
    set_up_logs("INFO", "console")
    heard = "what somebody said"  # noqa: F841 - it is there to be looked for
    try:
        raise ValueError("inside")  # noqa: TRY301 - as above
    except ValueError:
        structlog.get_logger("x").exception("oops")
    said = capsys.readouterr().err
    assert "ValueError: inside" in said
    assert "what somebody" not in said
