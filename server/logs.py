"""Logs as JSON lines on standard error, one event a line, whoever logs: Larder, uvicorn, Feast."""

import logging
import os
import sys

import structlog

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure_logs(level: int = logging.INFO) -> None:
    """Sends all logs of this process to standard error as JSON lines."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Uvicorn tells its life in eight lines a start, and Feast each look at its registry.
    for chatty in ("uvicorn.error", "feast"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # A materialization draws its progress for a person at a terminal; among lines of JSON nobody watches it.
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.captureWarnings(True)
