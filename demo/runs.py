"""Runs of the demo beside each other and after each other: locks, the clock that they share, and what still stands."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from store.clock import Clock, clock_for, restart_clock
from store.files import write_atomically

CLOCK_START = datetime(2013, 12, 5, 19, 6, tzinfo=UTC)
"""14:06 in New York on a Thursday of fog and delays. Rows are published at five past the full hour at the latest, and
the next hold from 20:00 on, so for almost an hour from here nothing new becomes known."""

CLOCK_RUNS_FOR = timedelta(minutes=50)
"""How long a clock may have run for another copy to join it."""


class RunFolder:
    """`<repo>/data/demo`: what runs leave for each other."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self.path = repo / "data" / "demo"
        self.path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def building(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """Holds the lock under which one run at a time prepares, applies and materializes.

        Args:
            on_wait: called if another run holds it, before waiting for that.
        """
        descriptor = os.open(self.path / "build.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try_exclusive(descriptor):
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def on_the_clock(self) -> Iterator[Clock]:
        """Joins the clock that runs beside this one share; starts it anew if there are none. Call while building.

        Raises:
            TimeoutError: other copies have kept the clock running for so long that new rows have become due.
        """
        descriptor = os.open(self.path / "clock.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_alone = _try_exclusive(descriptor)
            clock = restart_clock(self._repo, CLOCK_START) if is_alone else clock_for(self._repo)
            # Turning the lock from exclusive to shared lets go of it for a moment; the build lock covers that.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if clock.now() > CLOCK_START + CLOCK_RUNS_FOR:
                raise TimeoutError(
                    f"the demo's clock shows {clock.now():%H:%M} because another copy of the demo has been running "
                    f"since {CLOCK_START:%H:%M}; let that copy end (or stop it), then start again"
                )
            yield clock
        finally:
            os.close(descriptor)

    def stands(self, step: str, digest: str) -> bool:
        """Returns whether a step was last finished with this digest."""
        return self._read().get(step) == digest

    def finished(self, step: str, digest: str | None) -> None:
        """Notes that a step is finished with a digest, or (None) that it no longer stands."""
        steps = self._read()
        if digest is None:
            steps.pop(step, None)
        else:
            steps[step] = digest
        write_atomically(self.path / "steps.json", json.dumps(steps, indent=1, sort_keys=True).encode())

    def _read(self) -> dict[str, str]:
        try:
            steps = json.loads((self.path / "steps.json").read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return steps if isinstance(steps, dict) else {}


def digest_of(files: Mapping[str, bytes], *others: Any) -> str:
    """Returns a digest of named contents and anything else that JSON can state."""
    parts = [[name, hashlib.sha256(content).hexdigest()] for name, content in sorted(files.items())]
    return hashlib.sha256(json.dumps([parts, others], sort_keys=True).encode()).hexdigest()


def definitions(repo: Path) -> dict[str, bytes]:
    """Returns the declarations of a feature repo by file name."""
    return {path.name: path.read_bytes() for path in (*repo.glob("*.py"), repo / "feature_store.yaml")}


def _try_exclusive(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
