"""Errors in the envelope that OpenAI's SDKs read."""

from typing import Any

import pytest

from bus_worker.errors import (
    AudioTooLong,
    AudioTooShort,
    BadAudio,
    BadRequest,
    BusWorkerError,
    Busy,
    Failed,
    ModelNotFound,
    TooLarge,
    Unavailable,
)
from gateway.openai.errors import envelope, refused


@pytest.mark.parametrize(
    ("error", "kind", "param", "code"),
    [
        (refused("no", "stream"), "invalid_request_error", "stream", "invalid_value"),
        (refused("no", "x", "unknown_parameter"), "invalid_request_error", "x", "unknown_parameter"),
        (BadRequest("no"), "invalid_request_error", None, "invalid_value"),
        (BadAudio("no"), "invalid_request_error", "file", "invalid_value"),
        (AudioTooShort("no"), "invalid_request_error", "file", "audio_too_short"),
        (AudioTooLong("no"), "invalid_request_error", "file", "invalid_value"),
        (TooLarge("no"), "invalid_request_error", "file", "too_large"),
        (ModelNotFound("no"), "invalid_request_error", "model", "model_not_found"),
        (Failed("no"), "server_error", None, "failed"),
        (Busy("no"), "server_error", None, "busy"),
        (Unavailable("no"), "server_error", None, "unavailable"),
    ],
)  # fmt: skip
def test_an_error_says_what_kind_it_is_and_which_field_is_at_fault(
    error: BusWorkerError, kind: str, param: str | None, code: str
):
    body: dict[str, Any] = {"message": "no", "type": kind, "param": param, "code": code}
    assert envelope(error) == {"error": body}


@pytest.mark.parametrize(
    ("said", "message", "param"),
    [
        ("'options.language': model 'x' does not know 'yue'",
         "'language': model 'x' does not know 'yue'", "language"),
        ("'options.task': model 'tiny.en' cannot translate",
         "'model': model 'tiny.en' cannot translate", "model"),
        ("'options.hotwords.3': too long", "'keywords': too long", "keywords"),
        ("'stages.whisper.vad_threshold': too much", "'chunking_strategy': too much", "chunking_strategy"),
        ("'options.colour': what", "'options.colour': what", None),
    ],
)  # fmt: skip
def test_a_workers_refusal_names_the_callers_field(said: str, message: str, param: str | None):
    error = envelope(BadRequest(said))["error"]
    assert (error["message"], error["param"]) == (message, param)
