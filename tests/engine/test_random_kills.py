"""`feast materialize`, killed at random moments: readers never notice, and the same command again makes good.

What is killed is the real command in a process of its own, forked from one that has imported Feast already. Rows of
two versions differ in every feature, so a torn row would show.
"""

import os
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore as StockFeatureStore
from feast.protos.feast.core.FeatureView_pb2 import FeatureViewState
from feast.protos.feast.core.Registry_pb2 import Registry

from store.feature_store import FeatureStore
from store.kernel.keys import lease_key, row_field
from store.limits import LEASE_SECONDS
from store.online.client import RedisSession
from store.online.conversations import read_state
from store.online.views import entity_keys
from tests import warm
from tests.redis_servers import RedisServer, poll_until
from tests.stores import NOW, PROJECT, objects, user_rows, user_view, yaml_of

KEYS = 12_000
"""Two batches a view, each of several round trips: there is a middle in which some keys are new and some old."""

VIEWS = ("users", "visitors")
READ_KEYS = 2_000
START, MIDDLE, END = NOW - timedelta(days=1), NOW - timedelta(hours=4), NOW - timedelta(hours=1)


class WarmFeast:
    """Runs `feast` commands in forks of a process that has imported Feast."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._environ = os.environ | {"LARDER_CLOCK": NOW.isoformat()}

    def begin(self, *arguments: str) -> warm.WarmCommand:
        """Begins a command."""
        with self._log.open("ab") as file:
            return warm.begin("feast", *arguments, environ=self._environ, output=file.fileno())

    def run(self, *arguments: str) -> float:
        """Runs a command to its good end and returns how many seconds it took."""
        return warm.run("feast", *arguments, log=self._log, environ=self._environ)


@dataclass(frozen=True)
class EndState:
    """What Redis and the registry hold, without numbers of generations and times of runs: each run has its own."""

    rows: dict[str, dict[bytes, bytes]]
    coverage: dict[str, Any]
    registry: dict[str, Any]


@dataclass
class Scene:
    """A repo of two views whose old rows are served, and whose new rows wait to be materialized."""

    repo: Path
    server: RedisServer
    session: RedisSession
    feast: WarmFeast
    before: EndState
    is_rebuild: bool
    _redis: dict[bytes, bytes]
    _registry: bytes

    @property
    def commands(self) -> list[tuple[str, ...]]:
        """The arguments of `feast` by which the new rows are materialized, either way."""
        in_repo = ("--chdir", str(self.repo))
        return [
            (*in_repo, "materialize", START.isoformat(), END.isoformat()),
            (*in_repo, "materialize-incremental", END.isoformat()),
        ]

    def restore(self) -> None:
        """Puts back Redis and registry as they were before the run."""
        client = self.server.client()
        client.flushall()
        with client.pipeline(transaction=False) as pipe:
            for key, content in self._redis.items():
                pipe.restore(key, 0, content)
            pipe.execute()
        (self.repo / "data" / "registry.db").write_bytes(self._registry)

    def free_leases(self, *, by_waiting: bool) -> None:
        """Waits until the killed run's leases have lapsed, or does what the end of their time would do."""
        leases = [lease_key(PROJECT, view) for view in VIEWS]
        client = self.server.client()
        if by_waiting:
            poll_until(lambda: not client.exists(*leases), LEASE_SECONDS + 5, what="the leases have lapsed")
        client.delete(*leases)


def version_of(user: int, version: int) -> tuple[int, float, str]:
    """Returns the features of one version of a user's row."""
    return version * 1_000_000 + user, version * 1_000_000 + user / 2, f"user {user} of version {version}"


def rows_of(version: int) -> pd.DataFrame:
    at = {1: MIDDLE, 2: END}[version] - timedelta(minutes=1)
    rows = user_rows(1, at).drop(columns=["user_id", "orders", "spent", "name"]).merge(
        pd.DataFrame({"user_id": range(1, KEYS + 1)}), how="cross"
    )  # fmt: skip
    orders, spent, names = zip(*(version_of(user, version) for user in range(1, KEYS + 1)), strict=True)
    return rows.assign(orders=pd.array(orders, dtype="Int64"), spent=spent, name=names)


def defined(without: str | None) -> list[Any]:
    schema = [field for field in user_view().schema if field.name != without]
    return [*objects(user_view(schema=schema)), user_view(name="visitors", schema=schema)]


@pytest.fixture
def feast(tmp_path: Path) -> WarmFeast:
    return WarmFeast(tmp_path / "log")


@pytest.fixture(params=[False, True], ids=["renewal", "rebuild"])
def scene(
    request: pytest.FixtureRequest,
    repo: Path,
    server: RedisServer,
    session: RedisSession,
    feast: WarmFeast,
    monkeypatch: pytest.MonkeyPatch,
) -> Scene:
    """A run that renews rows where they stand, and one that builds a changed definition beside the old one."""
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    source = repo / "data" / "users.parquet"
    rows_of(1).to_parquet(source)
    store = FeatureStore(str(repo))
    store.apply(defined(without=None))
    store.materialize(START, MIDDLE)
    pd.concat([rows_of(1), rows_of(2)]).to_parquet(source)
    if request.param:
        store.apply(defined(without="last"))
    client = server.client()
    keys = client.keys("*")
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.dump(key)
        contents = dict(zip(keys, pipe.execute(), strict=True))
    before = end_state(repo, server, session)
    registry = (repo / "data" / "registry.db").read_bytes()
    return Scene(repo, server, session, feast, before, request.param, contents, registry)


def end_state(repo: Path, server: RedisServer, session: RedisSession) -> EndState:
    states = {view: session.hold(read_state(PROJECT, view)).state for view in VIEWS}
    fields = [row_field(view, states[view].generation) for view in VIEWS]
    rows: dict[str, dict[bytes, bytes]] = {view: {} for view in VIEWS}
    client = server.client()
    for batch in entity_keys(session, PROJECT):
        with client.pipeline(transaction=False) as pipe:
            for key in batch:
                pipe.hmget(key, fields)
            for key, stored in zip(batch, pipe.execute(), strict=True):
                for view, row in zip(VIEWS, stored, strict=True):
                    rows[view][key] = row
    registry = Registry.FromString((repo / "data" / "registry.db").read_bytes())
    return EndState(
        rows,
        {view: (state.fingerprint, state.coverage, state.building) for view, state in states.items()},
        {view.spec.name: registered(view) for view in registry.feature_views},
    )


def registered(view: Any) -> Any:
    """Returns state and intervals of a view in Feast's registry.

    Feast adds an interval with each run: one that was killed after that and is repeated adds it again, or an empty one.
    """
    intervals = {
        (each.start_time.ToMicroseconds(), each.end_time.ToMicroseconds())
        for each in view.meta.materialization_intervals
    }
    state = FeatureViewState.Name(view.spec.state if hasattr(view.spec, "state") else view.meta.state)
    return state, {(start, end) for start, end in intervals if start < end}


def fields_in_redis(scene: Scene) -> set[bytes]:
    client = scene.server.client()
    fields: set[bytes] = set()
    for batch in entity_keys(scene.session, PROJECT):
        with client.pipeline(transaction=False) as pipe:
            for key in batch:
                pipe.hkeys(key)
            fields.update(*pipe.execute())
    return fields


def new_rows_that_readers_see(scene: Scene, unkilled: EndState, random: Random) -> int:
    """Reads what a run has left by the stock SDK, online and offline, and all stored rows; returns how many are new.

    Every row is the old or the new one, whole.
    """
    left = end_state(scene.repo, scene.server, scene.session)
    new_count = 0
    for view in VIEWS:
        assert left.rows[view].keys() == unkilled.rows[view].keys()
        is_old = {key: row == scene.before.rows[view][key] for key, row in left.rows[view].items()}
        assert all(is_old[key] or row == unkilled.rows[view][key] for key, row in left.rows[view].items())
        new_count += list(is_old.values()).count(False)
        if scene.is_rebuild:
            assert len(set(is_old.values())) == 1, "a rebuild takes over in one step"
    stock = StockFeatureStore(str(scene.repo))
    users = random.sample(range(1, KEYS + 1), READ_KEYS)
    features = [f"{view}:{name}" for view in VIEWS for name in ("orders", "spent", "name")]
    answer = stock.get_online_features(features, {"user_id": users}, full_feature_names=True).to_dict()
    for view in VIEWS:
        columns = (answer[f"{view}__{name}"] for name in ("orders", "spent", "name"))
        for user, row in zip(users, zip(*columns, strict=True), strict=True):
            assert row in (version_of(user, 1), version_of(user, 2))
    entities = pd.DataFrame({"user_id": [1, KEYS] * 2, "event_timestamp": [MIDDLE] * 2 + [END] * 2})
    trained = stock.get_historical_features(entities, ["users:orders"]).to_df()
    assert trained["orders"].tolist() == [version_of(user, version)[0] for version in (1, 2) for user in (1, KEYS)]
    return new_count


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.long)])
def test_a_materialization_killed_at_random_moments_is_made_good_by_the_same_command(scene: Scene, kills: int) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    random = Random(seed)
    unkilled = {}
    for command in scene.commands:
        scene.restore()
        run_seconds = scene.feast.run(*command)
        unkilled[command] = end_state(scene.repo, scene.server, scene.session)
        for view in VIEWS:
            assert set(unkilled[command].rows[view].values()).isdisjoint(scene.before.rows[view].values())
    killed = 0
    for _ in range(9 * kills):
        scene.restore()
        assert end_state(scene.repo, scene.server, scene.session) == scene.before
        command = random.choice(scene.commands)
        running = scene.feast.begin(*command)
        wait_seconds = random.uniform(0.0, run_seconds)
        # The moment of the kill is what this test is about, so there is nothing to poll for.
        time.sleep(wait_seconds)
        running.kill()
        has_ended_before = running.wait() == 0
        new_count = new_rows_that_readers_see(scene, unkilled[command], random)
        print(f"killed after {wait_seconds:.3f} of {run_seconds:.3f} s, {has_ended_before=}, new rows: {new_count}")
        if has_ended_before:
            # This one was faster; a moment beyond its end is none of a run.
            run_seconds = wait_seconds
            continue
        scene.free_leases(by_waiting=kills > 1 and not killed)
        scene.feast.run(*command)
        assert end_state(scene.repo, scene.server, scene.session) == unkilled[command]
        assert len(fields_in_redis(scene)) == len(VIEWS)
        killed += 1
        if killed == kills:
            return
    pytest.fail(f"only {killed} of {9 * kills} runs were still under way when they were killed")
