"""Many writers at once, by HTTP, by the SDK and by materialization, in random order, end where the plain model does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from store.feature_store import FeatureStore
from store.online import RedisOnlineStore
from tests.oracles.rows import WrittenRow, may_stand
from tests.redis_servers import RedisServer, private_redis
from tests.server.live import LiveServer, serving
from tests.stores import NOW, make_store, objects, user_view, yaml_of

MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = NOW - timedelta(hours=6)


@dataclass(frozen=True)
class Version:
    """One version of a user's row; its number is its value, and tells it from all others."""

    user: int
    row: WrittenRow

    @property
    def number(self) -> int:
        return int(self.row.values["orders"])  # noqa: PD011 - a dict of ours, no frame

    @property
    def event(self) -> datetime:
        return EPOCH + self.row.event // 1_000 * MICROSECOND

    @property
    def created(self) -> datetime | None:
        return None if self.row.created is None else EPOCH + self.row.created // 1_000 * MICROSECOND


def nanoseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND * 1_000


def made_up(random: Random, users: int, versions: int, *, pushed_share: float = 0.7) -> list[Version]:
    """Returns versions whose times tie often: few event times, fewer created times, some without one."""
    made = []
    for number, user in enumerate([*range(1, users + 1)] * versions):
        event = NOW - timedelta(hours=1, minutes=random.randrange(versions // 3))
        created = random.choice([None, *(NOW - timedelta(minutes=50 - n) for n in range(2))])
        is_pushed = random.random() < pushed_share
        times = (nanoseconds(event), None if created is None else nanoseconds(created))
        made.append(Version(user, WrittenRow(*times, is_pushed, {"orders": number})))
    return made


def frame(versions: list[Version]) -> pd.DataFrame:
    """Returns versions as rows of the batch source."""
    return pd.DataFrame(
        {
            "user_id": [version.user for version in versions],
            "event_timestamp": [version.event for version in versions],
            "created": pd.Series([version.created for version in versions], dtype="datetime64[us, UTC]"),
            "spent": [version.number * 0.5 for version in versions],
            "orders": pd.array([version.number for version in versions], dtype="Int64"),
            "name": [f"number {version.number}" for version in versions],
            "last": [[float(version.number)] for version in versions],
        }
    )


# --- the writers --------------------------------------------------------------------------------------

Writer = Callable[[list[Version]], None]


def http_writer(live: LiveServer) -> Writer:
    def push(versions: list[Version]) -> None:
        columns = frame(versions).to_dict("list")
        columns["event_timestamp"] = [version.event.isoformat() for version in versions]
        columns["created"] = [None if version.created is None else version.created.isoformat() for version in versions]
        answer = live.post("/push", {"push_source_name": "users_push", "df": columns, "to": "online"})
        assert answer.status_code == 200, answer.text

    return push


def sdk_writer(store: FeatureStore) -> Writer:
    """Returns a writer with an online store, and so with connections and knowledge, of its own."""
    online, view = RedisOnlineStore(), store.get_feature_view("users")

    def write(versions: list[Version]) -> None:
        data = [
            (
                EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=version.user)]),
                {"spent": Value(double_val=version.number * 0.5), "orders": Value(int64_val=version.number)},
                version.event,
                version.created,
            )
            for version in versions
        ]
        online.online_write_batch(store.config, view, data, None)

    return write


@contextmanager
def writing(writers: list[Writer], versions: list[list[Version]], seed: int) -> Iterator[None]:
    """Lets each writer write its versions in random order and pieces, again and again until the block is through."""
    is_through = threading.Event()
    failures: list[BaseException] = []

    def write(writer: Writer, own: list[Version], random: Random) -> None:
        try:
            for _ in range(1_000):
                remaining = random.sample(own, len(own))
                while remaining:
                    size = random.randint(1, 20)
                    writer(remaining[:size])
                    remaining = remaining[size:]
                if is_through.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(writer, own, Random(f"{seed} {n}")))
        for n, (writer, own) in enumerate(zip(writers, versions, strict=True))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_through.set()
        for thread in threads:
            thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


# --- the tests ----------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A feature store and a server over the same repo, and all versions that anybody writes."""

    store: FeatureStore
    live: LiveServer
    versions: list[Version]

    def materialize(self) -> None:
        self.store.materialize(START, NOW, ["users"])

    def stored(self) -> dict[int, int]:
        """Returns the number that stands for each user, as the server and the SDK both say."""
        users = sorted({version.user for version in self.versions})
        answer = self.live.lookup({"user_id": users}, "users:orders", "users:spent").json()
        found = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        orders = found["orders"]["values"]
        # All of a row is one writer's.
        assert found["spent"]["values"] == [number * 0.5 for number in orders]
        at = {version.number: version.event for version in self.versions}
        assert [datetime.fromisoformat(t) for t in found["orders"]["event_timestamps"]] == [at[n] for n in orders]
        assert self.store.get_online_features(["users:orders"], {"user_id": users}).to_dict()["orders"] == orders
        return dict(zip(users, orders, strict=True))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, RedisServer, LiveServer]]:
    """A repo whose clock stands in the past, its Redis, and a server on it."""
    folder = tmp_path_factory.mktemp("convergence")
    repo = folder / "repo"
    with pytest.MonkeyPatch.context() as patch, private_redis(folder) as redis:
        patch.setenv("LARDER_CLOCK", NOW.isoformat())
        make_store(repo, redis.url)
        (repo / "feature_store.yaml").write_text(yaml_of(redis.url))
        with serving(repo, environ={"LARDER_CLOCK": NOW.isoformat()}) as live:
            yield repo, redis, live


@pytest.fixture
def scene_of(served: tuple[Path, RedisServer, LiveServer]) -> Callable[[list[Version]], Scene]:
    repo, redis, live = served
    redis.client().flushall()

    def scene(versions: list[Version]) -> Scene:
        store = make_store(repo, redis.url, frame([version for version in versions if not version.row.is_pushed]))
        return Scene(store, live, versions)

    return scene


def assert_converges(scene: Scene, seed: int, *, is_rebuilt: bool, runs: int = 1) -> None:
    """Writes all versions at once, by three writers of each kind and materializations beside them."""
    pushed = [version for version in scene.versions if version.row.is_pushed]
    Random(seed).shuffle(pushed)
    scene.materialize()
    if is_rebuilt:
        # A changed definition: the next run fills a generation of its own, and takes over what was pushed.
        scene.store.apply(objects(user_view(schema=[f for f in user_view().schema if f.name != "last"])))
    writers = [*(http_writer(scene.live) for _ in range(3)), *(sdk_writer(scene.store) for _ in range(3))]
    with writing(writers, [pushed[n::6] for n in range(6)], seed):
        for _ in range(runs):
            scene.materialize()
    by_number = {version.number: version for version in scene.versions}
    for user, number in scene.stored().items():
        rows = [version.row for version in scene.versions if version.user == user]
        assert by_number[number].row in may_stand(rows), f"user {user}"


@pytest.mark.parametrize("is_rebuilt", [False, True], ids=["refreshed", "rebuilt"])
def test_all_writers_at_once_end_where_the_model_does(
    scene_of: Callable[[list[Version]], Scene], is_rebuilt: bool
) -> None:
    scene = scene_of(made_up(Random(11), users=40, versions=15))
    assert_converges(scene, 11, is_rebuilt=is_rebuilt)
    assert_the_last_of_equals_stands(scene)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_many_more_versions_end_where_the_model_does(scene_of: Callable[[list[Version]], Scene], seed: int) -> None:
    scene = scene_of(made_up(Random(seed), users=300, versions=60))
    assert_converges(scene, seed, is_rebuilt=bool(seed % 2), runs=4)
    assert_the_last_of_equals_stands(scene)


def assert_the_last_of_equals_stands(scene: Scene) -> None:
    """Writes rows with the times of those that stand: of pushes the last one stays, also against a materialization."""
    by_number = {version.number: version for version in scene.versions}
    standing = [by_number[number] for number in scene.stored().values()]
    writers: list[Any] = [http_writer(scene.live), sdk_writer(scene.store), http_writer(scene.live)]
    for turn, writer in enumerate(writers, start=1):
        equal = [replace(v, row=replace(v.row, values={"orders": v.number + turn * 1_000_000})) for v in standing]
        scene.versions += equal
        writer(equal)
        assert list(scene.stored().values()) == [version.number for version in equal]
    scene.materialize()
    assert list(scene.stored().values()) == [version.number for version in equal]
