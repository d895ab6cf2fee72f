"""Fixtures: one applied repo with broken corners, and servers on it that live for all tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.auth import digest_of
from tests.server.live import LiveServer, apply, break_sources, copy_repo, serving, write_repo
from tests.server.retrieval_server import DEFINITIONS

TOKENS = {scope: f"a-token-that-may-{scope}" for scope in ("read", "write", "admin")}


@pytest.fixture(scope="session")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied feature repo, to be copied."""
    folder = write_repo(tmp_path_factory.mktemp("applied") / "repo")
    apply(folder)
    return folder


@pytest.fixture(scope="session")
def obedient_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied feature repo with a view besides that does what its entity rows say."""
    folder = write_repo(tmp_path_factory.mktemp("obedient") / "repo")
    with (folder / "definitions.py").open("a") as file:
        file.write(DEFINITIONS)
    apply(folder)
    return folder


@pytest.fixture(scope="session")
def cabs(tmp_path_factory: pytest.TempPathFactory, applied: Path) -> Path:
    """An applied feature repo; two of its sources were broken after that."""
    folder = copy_repo(applied, tmp_path_factory.mktemp("cabs") / "repo", "embedded")
    break_sources(folder)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, applied: Path) -> Iterator[LiveServer]:
    """A server on a copy of the repo in which nothing is broken."""
    with serving(copy_repo(applied, tmp_path_factory.mktemp("whole") / "repo", "embedded")) as live:
        yield live


@pytest.fixture(scope="session")
def server(cabs: Path) -> Iterator[LiveServer]:
    """A server without tokens, its views materialized."""
    with serving(cabs, "--access-log") as live:
        body = {"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["driver_stats", "areas"]}
        done = live.post("/materialize", body)
        assert done.status_code == 200, done.text
        yield live


@pytest.fixture(scope="session")
def guarded(cabs: Path, server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a token for each scope, reachable from other machines as far as it knows."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    entries = [{"name": scope, "sha256": digest_of(token), "scopes": [scope]} for scope, token in TOKENS.items()]
    path.write_text(json.dumps(entries))
    environ = {"LARDER_TOKENS_FILE": str(path), "LARDER_ALLOWED_HOSTS": "features.example.org"}
    with serving(cabs, "--host", "0.0.0.0", environ=environ) as live:
        yield live
