"""The addresses under /jobs as `/openapi.json` tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus_worker import errors as kinds
from bus_worker.client import JobStatus
from gateway.jobs.routes import KEY, KEY_FORM, JobFields
from gateway.openapi import (
    AUDIO,
    EVENTS,
    UPLOAD,
    Section,
    TranscriptReply,
    in_address,
    json_answer,
    problems,
    response,
    upload,
)

__all__ = ["JOBS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReply(JobStatus):
    """Where a job stands, and when it is done what was said."""

    result: TranscriptReply | None = None


NAMED = {
    "name": "job_id", "in": "path", "required": True, "description": "As it was answered.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
}  # fmt: skip
FINDING = (kinds.BadRequest, kinds.JobNotFound, kinds.Unavailable)
LAST_EVENT = {
    "schema": {"type": "string", "pattern": r"^\d{1,18}$"},
    "description": "The id of the last event that was heard: those behind it come.",
}
NOTHING = {
    "description": "",
    "headers": {"X-Request-Id": {"schema": {"type": "string"}, "description": "For the logs."}},
}


def _submit() -> dict[str, Any]:
    accepted = json_answer(JobStatus, "It will be done, whatever is restarted meanwhile.")
    accepted["headers"]["Location"] = {
        "schema": {"type": "string"},
        "description": "Where to ask for it.",
    }
    form = upload(JobFields, "The audio: hours of it.")
    key = {
        "name": KEY, "in": "header",
        "schema": {"type": "string", "pattern": f"^{KEY_FORM.pattern}$"},
        "description": "Yours: handed in again under the same one, it is the same job.",
    }  # fmt: skip
    errors = {*UPLOAD, kinds.IdempotencyConflict} - {
        kinds.BadAudio, kinds.AudioTooShort, kinds.AudioTooLong, kinds.ClaimExpired,
        kinds.Stopping, kinds.DeadlineExceeded,
    }  # fmt: skip
    return {
        "summary": "Hand in a recording of up to hours",
        "description": "The audio as for `/transcribe`. What is wrong with the audio itself is told"
        " by the job's status.",
        "parameters": [key, *in_address(form)],
        "requestBody": {"required": True, "content": {"multipart/form-data": form, **AUDIO}},
        "responses": {"202": accepted, **problems(*errors)},
    }


def _one(
    summary: str, description: str, answers: Mapping[str, Any], *parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """An address of one job."""
    return {
        "summary": summary,
        "description": description,
        "parameters": [NAMED, *parameters],
        "responses": {**answers, **problems(*FINDING)},
    }


JOBS = Section(
    paths={
        "/jobs": {"post": _submit()},
        "/jobs/{job_id}": {
            "get": _one(
                "Where a job stands",
                "`status` is `queued`, `running`, `done`, `failed` (with `error`) or `cancelled`;"
                " `progress` is the part of the audio that is done.",
                {"200": json_answer(JobReply, "With `result` when it is done.")},
            ),
            "delete": _one(
                "Cancel a job, or erase a finished one",
                "A cancelled job stops within one window of its audio; a finished one is erased:"
                " audio, text, status and events.",
                {
                    "200": json_answer(JobStatus, "It is cancelled; or it ended just before."),
                    "204": {**NOTHING, "description": "It is erased."},
                },
            ),
        },
        "/jobs/{job_id}/events": {
            "get": _one(
                "What becomes of a job, as it happens",
                "Events `status` and `segments` (of the piece `window`; pieces may be ready in any"
                " order), with comments as signs of life between them; ends with the last event.",
                {
                    "200": response("Server-sent events, each with an `id`.", {"text/event-stream": EVENTS}),
                    "204": {**NOTHING, "description": "The last event was heard already."},
                },
                {"name": "Last-Event-ID", "in": "header", **LAST_EVENT},
                {"name": "last_event_id", "in": "query", **LAST_EVENT},
            )
        },
    },
    models=(JobStatus, JobReply),
)  # fmt: skip
"""The addresses of jobs."""
