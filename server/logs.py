"""Logs as JSON lines on standard error, one event a line, whoever logs: Larder, uvicorn, Feast."""

import io
import logging
import os
import re
import sys
import threading

import structlog
from tqdm import tqdm

_SHARED: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class PrintedLines(io.TextIOBase):
    """A standard output whose lines become events of the log; each thread's lines stay whole."""

    def __init__(self) -> None:
        self._begun = threading.local()

    def writable(self) -> bool:
        """Whether it can be written to: always."""
        return True

    def write(self, text: str) -> int:
        """Logs the lines that are whole."""
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            if event := _COLOUR.sub("", line).strip():
                logging.getLogger("larder.printed").info("%s", event)
        return len(text)


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
    # By default its bars take turns by a lock of the system's, which a worker that was told to stop would leave behind.
    tqdm.set_lock(threading.RLock())
    # Feast prints what it materializes, in colours.
    sys.stdout = PrintedLines()
    logging.captureWarnings(True)
