"""Traces go on as they came, and become spans where somebody wants them."""

import logging
from pathlib import Path

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from bus_worker import tracing
from bus_worker.client import TranscribeClient
from bus_worker.jobs import Limits
from bus_worker.request_line import RequestLine
from bus_worker.settings import load_settings
from bus_worker.telemetry import OtlpTracer
from bus_worker.testing import pretend
from bus_worker.tracing import NoTracer, open_tracer, read_traceparent
from plugins.decode import decode
from plugins.limits import limits
from plugins.tidy import tidy
from tests.helpers.collector import collector
from tests.helpers.gateway import gateway
from tests.helpers.house import Workers
from tests.helpers.tones import tone, wav_bytes

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
FROM_OUTSIDE = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "text",
    [None, "", "x", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
     f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-01\r\nX: y"],
)  # fmt: skip
def test_what_is_no_traceparent_is_not_passed_on(text: str | None):
    assert read_traceparent(text) is None


def test_without_an_endpoint_a_trace_goes_on_as_it_came():
    tracer = open_tracer("x", None)
    span = tracer.start("request", FROM_OUTSIDE)
    span.add([("part", 0.0, 1.0)])
    span.end("failed")
    tracer.close()
    assert span.traceparent == FROM_OUTSIDE


def test_an_endpoint_without_the_library_is_told_of_and_costs_nothing_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(tracing.importlib, "import_module", absent)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_tracer("x", "http://localhost:4318"), NoTracer)
    assert "pip install 'bus-worker[traces]'" in caplog.text


async def test_a_request_over_http_is_one_trace_from_the_door_to_the_engine(workers: Workers):
    """And the lines of both sides name it."""
    with collector() as there, capture_logs([merge_contextvars]) as entries:
        worker_tracer = OtlpTracer("bus-worker", there.url)
        line = RequestLine(model="pretend", worker_id="w1", tracer=worker_tracer)
        await workers.start(decode, limits, pretend, tidy, line=line, seconds=0.05)
        sent_to = {"otel_exporter_otlp_endpoint": there.url}
        async with gateway(workers.server.url, **sent_to) as door, door.caller() as caller:
            answer = await caller.post(
                "/transcribe",
                content=wav_bytes(tone(0.5)),
                headers={"traceparent": FROM_OUTSIDE, "Content-Type": "audio/wav"},
            )
        assert answer.status_code == 200
        (said,) = (entry for entry in entries if entry["event"] == "request")
        assert said["trace_id"] == TRACE
        (told,) = (entry for entry in entries if entry["event"] == "http")
        assert (told["route"], told["status"], told["trace_id"]) == ("/transcribe", 200, TRACE)
        assert told["request_id"] == said["request_id"] == answer.headers["X-Request-Id"]
        worker_tracer.close()
    assert {span.trace_id.hex() for _, span in there.spans} == {TRACE}
    outside = there.named("bus-gateway", "POST")
    assert outside.parent_span_id.hex() == PARENT
    inside = there.named("bus-worker", "transcribe")
    assert inside.parent_span_id == outside.span_id
    parts = ["stage decode", "stage limits", "stage pretend", "stage tidy", "wait"]
    assert there.names("bus-worker") == sorted([*parts, "transcribe"])
    for name in parts:
        part = there.named("bus-worker", name)
        assert part.parent_span_id == inside.span_id
        assert inside.start_time_unix_nano <= part.start_time_unix_nano
        assert part.start_time_unix_nano <= part.end_time_unix_nano <= inside.end_time_unix_nano
    heard = there.named("bus-worker", "stage pretend")
    assert heard.end_time_unix_nano - heard.start_time_unix_nano >= 45_000_000


async def test_a_jobs_windows_are_parts_of_its_submitters_trace(workers: Workers):
    with collector() as there:
        tracer = OtlpTracer("bus-worker", there.url)
        line = RequestLine(model="pretend", worker_id="w1", tracer=tracer)
        await workers.start(decode, limits, pretend, tidy, jobs=Limits(), line=line, seconds=0.01)
        client: TranscribeClient = await workers.client()
        job = await client.submit(wav_bytes(tone(40)), traceparent=FROM_OUTSIDE)
        await job.result(30)
        await workers.stack.aclose()
        tracer.close()
    assert {span.trace_id.hex() for _, span in there.spans} == {TRACE}
    assert there.names("bus-worker").count("window") == 2
    assert there.names("bus-worker").count("job") == 1


async def test_a_failed_request_is_an_error_in_its_trace(workers: Workers):
    with collector() as there:
        tracer = OtlpTracer("bus-worker", there.url)
        line = RequestLine(model="pretend", worker_id="w1", tracer=tracer)
        await workers.start(decode, limits, pretend, line=line)
        client = await workers.client()
        with pytest.raises(Exception, match="not audio"):
            await client.transcribe(b"x" * 100, traceparent=FROM_OUTSIDE)
        tracer.close()
    span = there.named("bus-worker", "transcribe")
    assert {a.key: a.value.string_value for a in span.attributes}["error.type"] == "bad_audio"


def test_the_setting_takes_an_address_only(tmp_path: Path):
    settings = load_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})
    assert settings.otel_exporter_otlp_endpoint == "http://localhost:4318"
