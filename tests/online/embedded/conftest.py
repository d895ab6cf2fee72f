"""A repo whose embedded Redis is gone after the test."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.online.embedded.processes import IDLE, clean_up


@pytest.fixture
def repo(repo: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repo whose embedded Redis has a short idle time and is gone after the test."""
    monkeypatch.setenv("LARDER_EMBEDDED_IDLE_SECONDS", str(IDLE))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(short_path))
    try:
        yield repo
    finally:
        clean_up(repo)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a path short enough for a socket, which pytest's own is not everywhere."""
    with tempfile.TemporaryDirectory(prefix="larder-test-", dir="/tmp") as folder:
        yield Path(folder)
