"""`larder deadletter` and what `larder ingest` refuses, as a person types them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from store.errors import ConfigError, InputError, UnknownObject
from store.feature_store import FeatureStore
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer
from tests.stream.test_inboxes import appended, feed_misfit, row


def run(repo: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "--repo", str(repo)], catch_exceptions=False)
    return done.exit_code, done.stdout


def test_dead_letters_are_listed_and_replayed(repo: Path, server: RedisServer, context: StreamContext) -> None:
    assert run(repo, "deadletter", "list") == (0, "no dead letters\n")
    feed_misfit(server, context)
    status, listed = run(repo, "deadletter", "list")
    assert status == 0
    for told in ("1  2026-03-01", "clicks", "inbox:clicks/", "waiting", "'worth'", '"worth": "much"', "1 dead letters"):
        assert told in listed
    assert run(repo, "deadletter", "replay")[0] == 1
    assert appended(server) == 0
    status, told = run(repo, "deadletter", "replay", "1", "--row", row(5.0), "--json")
    assert (status, json.loads(told)) == (0, [{"number": 1, "problem": None}])
    assert appended(server) == 1
    assert run(repo, "deadletter", "list", "--json") == (0, "[]\n")
    (kept,) = json.loads(run(repo, "deadletter", "list", "--all", "--json")[1])
    assert (kept["state"], kept["push_source"], kept["to"]) == ("replayed", "clicks", "online")
    with pytest.raises(UnknownObject):
        run(repo, "deadletter", "replay", "1")


def test_what_a_worker_cannot_do_is_refused(repo: Path, shop: FeatureStore) -> None:
    with pytest.raises(InputError, match="--partitions"):
        run(repo, "ingest", "--partitions", "9")
    with pytest.raises(ConfigError, match="no feature repo"):
        run(repo / "elsewhere", "ingest")
