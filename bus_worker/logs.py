"""How we speak: one line per event, for people on a terminal, JSON elsewhere, the request id on every line."""

import logging
import sys
from typing import Literal

import structlog

__all__ = ["set_up_logs"]


def set_up_logs(level: str = "INFO", style: Literal["auto", "json", "console"] = "auto") -> None:
    """Send structlog's and the standard library's records to standard error, in one form."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = (
        # Plain: the pretty one prints local variables, a caller's audio among them.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Libraries say at INFO what is only of use to their authors.
    for name in (
        "nats",
        "faster_whisper",
        "httpx",
        "httpcore",
        "huggingface_hub",
        "numba",
        "asyncio",
        "uvicorn",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
