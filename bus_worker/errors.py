"""Every way to fail, as one tree; each leaf has a code, an HTTP status and says whether asking again helps.

    BusWorkerError
    ├── RequestError            the caller's; asking again gives the same answer
    │   ├── BadRequest          bad_request            400
    │   ├── BadAudio            bad_audio              400
    │   ├── AudioTooShort       audio_too_short        400
    │   ├── AudioTooLong        audio_too_long         400
    │   ├── Unauthorized        unauthorized           401
    │   ├── NotFound            not_found              404
    │   ├── ModelNotFound       model_not_found        404
    │   ├── JobNotFound         job_not_found          404
    │   ├── MethodNotAllowed    method_not_allowed     405
    │   ├── RequestTimeout      request_timeout        408
    │   ├── IdempotencyConflict idempotency_conflict   409
    │   ├── ClaimExpired        claim_expired          410
    │   ├── TooLarge            too_large              413
    │   ├── RateLimited         rate_limited           429, again
    │   └── Cancelled           cancelled              499
    ├── ServiceError            ours
    │   ├── Failed              failed                 500
    │   ├── Busy                busy                   503, again
    │   ├── Stopping            stopping               503, again
    │   ├── Unavailable         unavailable            503, again
    │   └── DeadlineExceeded    deadline_exceeded      504, again
    └── SetupError              a worker that will not start; never on the wire
        ├── BadSetting          bad_setting
        ├── BadPlugin           bad_plugin
        └── ModelUnavailable    model_unavailable

A class's docstring is its message when it is raised without one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AudioTooLong",
    "AudioTooShort",
    "BadAudio",
    "BadPlugin",
    "BadRequest",
    "BadSetting",
    "BusWorkerError",
    "Busy",
    "Cancelled",
    "ClaimExpired",
    "DeadlineExceeded",
    "Failed",
    "IdempotencyConflict",
    "JobNotFound",
    "MethodNotAllowed",
    "ModelNotFound",
    "ModelUnavailable",
    "NotFound",
    "RateLimited",
    "RequestError",
    "RequestTimeout",
    "ServiceError",
    "SetupError",
    "Stopping",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "error_codes",
    "error_for_code",
]


class BusWorkerError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = ""
    status: ClassVar[int] = 500
    retry: ClassVar[bool] = False

    def __init__(self, message: str = "", **details: Any) -> None:
        """Args: message for a person (the docstring if empty); details a program can read."""
        self.message = message or (type(self).__doc__ or "").strip()
        self.details: dict[str, Any] = details
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive pickling (keyword arguments do not by themselves)."""
        return (_rebuild, (type(self), self.message, self.details))


def _rebuild(
    kind: type[BusWorkerError], message: str, details: Mapping[str, Any]
) -> BusWorkerError:
    return kind(message, **details)


class RequestError(BusWorkerError):
    """The request cannot be served as it is."""

    status = 400


class BadRequest(RequestError):
    """The request is not a msgpack map of known fields with values that are allowed."""

    code = "bad_request"


class BadAudio(RequestError):
    """The audio cannot be read."""

    code = "bad_audio"


class AudioTooShort(RequestError):
    """The audio is shorter than the limit."""

    code = "audio_too_short"


class AudioTooLong(RequestError):
    """The audio is longer than the limit."""

    code = "audio_too_long"


class Unauthorized(RequestError):
    """The API key is missing or wrong."""

    code = "unauthorized"
    status = 401


class NotFound(RequestError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class ModelNotFound(RequestError):
    """No worker serves this model."""

    code = "model_not_found"
    status = 404


class JobNotFound(RequestError):
    """There is no such job, or it was erased, or kept long enough."""

    code = "job_not_found"
    status = 404


class MethodNotAllowed(RequestError):
    """This address does not take this method."""

    code = "method_not_allowed"
    status = 405


class RequestTimeout(RequestError):
    """The request itself did not arrive in time."""

    code = "request_timeout"
    status = 408


class IdempotencyConflict(RequestError):
    """This idempotency key was used for another request."""

    code = "idempotency_conflict"
    status = 409


class ClaimExpired(RequestError):
    """The audio that the ticket stands for is gone; send it again."""

    code = "claim_expired"
    status = 410


class TooLarge(RequestError):
    """The audio has more bytes than the limit."""

    code = "too_large"
    status = 413


class RateLimited(RequestError):
    """This key has as many requests in hand as it may; try again when one is answered."""

    code = "rate_limited"
    status = 429
    retry = True


class Cancelled(RequestError):
    """The caller cancelled the request."""

    code = "cancelled"
    status = 499


class ServiceError(BusWorkerError):
    """The service could not answer."""


class Failed(ServiceError):
    """Something failed inside the worker; its log has the cause."""

    code = "failed"


class Busy(ServiceError):
    """Every worker was busy until the deadline; try again, or start more workers."""

    code = "busy"
    status = 503
    retry = True


class Stopping(ServiceError):
    """The worker is shutting down; another one will take the request."""

    code = "stopping"
    status = 503
    retry = True


class Unavailable(ServiceError):
    """The bus is away, or no worker is on it."""

    code = "unavailable"
    status = 503
    retry = True


class DeadlineExceeded(ServiceError):
    """The answer was not ready by the request's deadline."""

    code = "deadline_exceeded"
    status = 504
    retry = True


class SetupError(BusWorkerError):
    """The program cannot start as it is set up."""


class BadSetting(SetupError):
    """A setting has a value that is not allowed."""

    code = "bad_setting"


class BadPlugin(SetupError):
    """A plugin cannot be loaded, or does not fit the pipeline."""

    code = "bad_plugin"


class ModelUnavailable(SetupError):
    """The model's files are not here and could not be fetched."""

    code = "model_unavailable"


def _leaves(kind: type[BusWorkerError]) -> list[type[BusWorkerError]]:
    """Every class below `kind` that carries a code of its own."""
    below = [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]
    return ([kind] if "code" in vars(kind) and kind.code else []) + below


def error_codes() -> frozenset[str]:
    """Every code of ours; a plugin's own class may have others."""
    ours = [kind for kind in globals().values() if isinstance(kind, type)]
    return frozenset(kind.code for kind in ours if issubclass(kind, BusWorkerError) and kind.code)


def error_for_code(
    code: str, message: str, details: Mapping[str, Any], *, status: int = 500, retry: bool = False
) -> BusWorkerError:
    """The error that a reply describes: our class for a code we know, else one made to carry it.

    A newer worker may send a code that this version does not know; its status and retry
    flag are then taken from the reply.
    """
    for kind in _leaves(BusWorkerError):
        if kind.code == code:
            return kind(message, **details)
    unknown = type(
        "UnknownError", (BusWorkerError,), {"code": code, "status": status, "retry": retry}
    )
    return unknown(message, **details)  # type: ignore[no-any-return]
