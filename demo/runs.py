"""Runs of the demo beside each other and after each other: locks, and what still stands."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from store.files import write_atomically


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
    def using(self) -> Iterator["InUse"]:
        """Counts as a run that uses what stands, until the block ends. Call while building."""
        descriptor = os.open(self.path / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield InUse(descriptor)
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


class InUse:
    """One run among those that use what stands."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def wait_until_alone(self, on_wait: Callable[[], None]) -> None:
        """Waits until no other run uses what stands, so that it can be made anew. Call while building.

        Args:
            on_wait: called if others use it, before waiting for them.
        """
        # A lock that is turned from shared to exclusive is let go for a moment; whoever would come in between builds.
        if not _try_exclusive(self._descriptor):
            on_wait()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)


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
