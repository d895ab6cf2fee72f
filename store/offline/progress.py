"""A progress bar on standard error, when a person is watching."""

import sys
import threading
from types import TracebackType
from typing import Self

from tqdm import tqdm

_DELAY_SECONDS = 2.0
"""Shorter work shows no bar."""


class Progress:
    """A bar of so many steps, which may be taken by several threads; nothing where nobody watches."""

    def __init__(self, total: int, what: str) -> None:
        self._bar = tqdm(
            total=total, desc=what, delay=_DELAY_SECONDS, leave=False, disable=not sys.stderr.isatty(), file=sys.stderr
        )
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Shows the bar."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the bar away."""
        self._bar.close()

    def advance(self) -> None:
        """Notes one more step as done."""
        with self._lock:
            self._bar.update()
