"""What a materialization would do is told beforehand, and nothing is done."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from store.errors import ConfigError, InputError, UnknownObject
from store.feature_store import FeatureStore
from tests.engine.helpers import DAY, orders, same_repo, write_users
from tests.redis_servers import RedisServer
from tests.stores import NOW, objects, user_view, yaml_of


def asked(*words: str) -> Any:
    answer = CliRunner().invoke(app, ["materialize", *words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture
def shown(store: FeatureStore, repo: Path, server: RedisServer) -> FeatureStore:
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    return store


def dump(server: RedisServer) -> dict[bytes, Any]:
    client = server.client()
    return {key: client.hgetall(key) for key in client.keys("*")}


def test_a_dry_run_says_what_the_run_then_does(shown: FeatureStore, repo: Path, server: RedisServer) -> None:
    start, end = (NOW - DAY).isoformat(), (NOW - timedelta(hours=2)).isoformat()
    write_users(repo, [(1, NOW - timedelta(hours=3), 1), (2, NOW - timedelta(hours=4), 2), (3, NOW, 3)])
    before = dump(server)
    words = ("--repo", str(repo), "--start", start, "--end", end)
    [told] = json.loads(asked("users", *words, "--dry-run", "--json"))
    assert told == {"feature_view": "users", "is_rebuild": False, "intervals": [[start, end]], "rows": 2}
    assert "users: read [" in asked(*words, "--dry-run")
    assert "write 2 rows at most" in asked(*words, "--dry-run")
    assert dump(server) == before
    asked(*words)
    assert orders(same_repo(shown), [1, 2, 3]) == [1, 2, None]


def test_a_changed_definition_is_told_as_a_rebuild_of_all_that_is_covered(shown: FeatureStore, repo: Path) -> None:
    shown.materialize(NOW - DAY, NOW)
    shown.apply(objects(user_view(schema=[field for field in user_view().schema if field.name != "last"])))
    [told] = json.loads(asked("users", "--repo", str(repo), "--dry-run", "--json"))
    assert told["is_rebuild"]
    assert told["intervals"][0][0] == (NOW - DAY).isoformat()
    assert told["rows"] == 5


def test_what_cannot_be_planned_is_refused(shown: FeatureStore, repo: Path) -> None:
    runner = CliRunner()

    def refused(*words: str) -> BaseException | None:
        return runner.invoke(app, ["materialize", "--repo", str(repo), "--dry-run", *words]).exception

    unknown = refused("nobody")
    assert isinstance(unknown, UnknownObject)
    assert "nobody" in str(unknown)
    assert isinstance(refused("--start", "soon"), InputError)
    assert isinstance(refused("--start", NOW.isoformat(), "--end", (NOW - DAY).isoformat()), InputError)


def test_another_online_store_cannot_be_planned_for(shown: FeatureStore, repo: Path) -> None:
    settings = (repo / "feature_store.yaml").read_text()
    [redis] = [line for line in settings.splitlines() if "connection_string" in line]
    settings = settings.replace(redis, "  path: data/online.db").replace("store.online.RedisOnlineStore", "sqlite")
    (repo / "feature_store.yaml").write_text(settings)
    answer = CliRunner().invoke(app, ["materialize", "--repo", str(repo), "--dry-run"])
    assert isinstance(answer.exception, ConfigError)
    assert "'sqlite'" in str(answer.exception)
