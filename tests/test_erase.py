"""Erasing an entity from all that Larder owns, over real Redis servers, applied definitions and landed files."""

import json
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.types import Int64, String
from typer.testing import CliRunner

from cli.main import app
from store.erasure import Eraser
from store.errors import InputError, LarderError, MaterializationBusy, UnknownObject, WrongType
from store.feature_store import FeatureStore
from store.kernel.keys import views_key
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.views import lease
from tests.redis_servers import (
    RedisServer,
    poll_until,
    private_cluster,
    private_redis_tcp,
    private_sentinel,
)
from tests.stores import NOW, PROJECT, config, yaml_of

DAY = timedelta(days=1)
DRIVER = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)
DRIVERS = (7, 8, 77)
# The last one reads like an encoded key of driver 7.
CITIES = ("Rome", "7", "6:driveri7,")


def view(name: str, entities: list[Entity], mapping: dict[str, str] | None = None) -> FeatureView:
    source = FileSource(
        name=f"{name}_file",
        path=f"data/{name}.parquet",
        timestamp_field="event_timestamp",
        field_mapping=mapping or {},
    )
    keys = [Field(name=e.join_key, dtype=Int64 if e is DRIVER else String) for e in entities]
    return FeatureView(
        name=name,
        entities=entities,
        ttl=DAY,
        schema=[*keys, Field(name="trips", dtype=Int64)],
        source=PushSource(name=f"{name}_push", batch_source=source),
    )


VIEWS = (
    view("drivers", [DRIVER], {"fahrer": "driver"}),
    view("driver_cities", [DRIVER, CITY]),
    view("cities", [CITY]),
)


def rows(name: str, at_minute: int = 0) -> pd.DataFrame:
    """Returns one row per key of a view, by names in the view."""
    keys: dict[str, list[Any]] = {
        "drivers": {"driver": list(DRIVERS)},
        "driver_cities": {"driver": [d for d in DRIVERS for _ in CITIES], "city": list(CITIES) * len(DRIVERS)},
        "cities": {"city": list(CITIES)},
    }[name]
    count = len(next(iter(keys.values())))
    at = [NOW - timedelta(hours=1) + timedelta(minutes=at_minute)] * count
    return pd.DataFrame({**keys, "event_timestamp": at, "trips": list(range(count))})


def filled(repo: Path, redis_url: str, project: str = PROJECT, **online: Any) -> FeatureStore:
    """Returns a store whose views were materialized from their files, then pushed to both sides."""
    for name in ("drivers", "driver_cities", "cities"):
        frame = rows(name)
        (repo / "data").mkdir(parents=True, exist_ok=True)
        (frame.rename(columns={"driver": "fahrer"}) if name == "drivers" else frame).to_parquet(
            repo / f"data/{name}.parquet"
        )
    store = FeatureStore(repo_path=str(repo), config=config(repo, redis_url, project, **online))
    store.apply([DRIVER, CITY, *VIEWS])
    store.materialize(NOW - DAY, NOW)
    for name in ("drivers", "driver_cities", "cities"):
        store.push(f"{name}_push", rows(name, 1), to=PushMode.ONLINE_AND_OFFLINE)
    return store


@pytest.fixture
def store(repo: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    (repo / "feature_store.yaml").write_text(yaml_of(server.url))
    return filled(repo, server.url)


def statuses(store: FeatureStore, name: str, **entities: list[Any]) -> list[int]:
    """Returns trips, None where a lookup finds nothing."""
    return list(store.get_online_features([f"{name}:trips"], entities).to_dict()["trips"])


def everything(store: FeatureStore) -> list[list[Any]]:
    pairs = rows("driver_cities")
    return [
        statuses(store, "drivers", driver=list(DRIVERS)),
        statuses(store, "driver_cities", driver=pairs["driver"].tolist(), city=pairs["city"].tolist()),
        statuses(store, "cities", city=list(CITIES)),
    ]


def landed(repo: Path, name: str) -> pd.DataFrame:
    return pq.read_table(repo / f"data/{name}.parquet.landed").to_pandas()


def command(repo: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["erase", *arguments, "--repo", str(repo)])


def test_every_row_whose_key_contains_the_value_goes_and_no_other(store: FeatureStore, repo: Path) -> None:
    eraser = Eraser(store, "driver=7")
    assert eraser.views == ["driver_cities", "drivers"]
    erasure = eraser.erase()
    assert everything(store) == [[None, 1, 2], [None, None, None, 3, 4, 5, 6, 7, 8], [0, 1, 2]]
    assert (erasure.redis.keys, erasure.redis.rows) == (4, 4)
    assert (erasure.looked_up_keys, erasure.looked_up_rows) == (4, 0)
    assert (erasure.after.is_clean, erasure.is_proven) == (True, True)
    assert sorted(file.rows for file in erasure.landed) == [1, 3]
    assert landed(repo, "drivers")["fahrer"].tolist() == [8, 77]
    assert landed(repo, "driver_cities")["trips"].tolist() == [3, 4, 5, 6, 7, 8]
    assert landed(repo, "cities")["trips"].tolist() == [0, 1, 2]
    own = {Path(file.path).name: file.rows for file in erasure.after.users}
    assert own == {"drivers.parquet": 1, "driver_cities.parquet": 3}
    assert len(pd.read_parquet(repo / "data/drivers.parquet")) == 3, "the user's own file is not ours to change"


def test_text_is_found_as_a_whole_value_and_all_columns_have_to_match(store: FeatureStore) -> None:
    Eraser(store, "city=7").erase()
    assert everything(store) == [[0, 1, 2], [0, None, 2, 3, None, 5, 6, None, 8], [0, None, 2]]
    Eraser(store, "driver=8,city=Rome").erase()
    assert everything(store) == [[0, 1, 2], [0, None, 2, None, None, 5, 6, None, 8], [0, None, 2]]


def test_all_generations_go(store: FeatureStore, server: RedisServer) -> None:
    server.client().hset(views_key("shop"), "generation:drivers", "1+2")
    for name in ("drivers", "cities"):
        store.push(f"{name}_push", rows(name, 2))
    assert server.client().hlen(b"4:shop:{6:driveri7,}") == 2
    assert Eraser(store, "driver=7").erase().redis.rows == 5
    alike = [key for key in server.client().keys("*") if b"6:driveri7," in key]
    assert len(alike) == 3, "the city that reads like driver 7 stays, alone and with the two other drivers"


def test_another_project_loses_nothing(store: FeatureStore, server: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = filled(tmp_path / "other", server.url, project="shop2")
    before = everything(other)
    Eraser(store, "driver=7").erase()
    assert everything(other) == before == [[0, 1, 2], list(range(9)), [0, 1, 2]]


def test_an_erased_row_comes_back_only_from_the_users_own_files(store: FeatureStore, repo: Path) -> None:
    Eraser(store, "driver=7").erase()
    for name, column in (("drivers", "fahrer"), ("driver_cities", "driver")):
        frame = pd.read_parquet(repo / f"data/{name}.parquet")
        frame[frame[column] != 7].to_parquet(repo / f"data/{name}.parquet")
    store.materialize(NOW - DAY, NOW)
    assert everything(store)[0] == [None, 1, 2]
    assert Eraser(store, "driver=7").holdings().users == ()
    frame = pd.DataFrame({"driver": [7], "event_timestamp": [NOW]})
    frame["event_timestamp"] = frame["event_timestamp"].dt.as_unit("us")
    answer = store.get_historical_features(frame, ["drivers:trips"]).to_df()
    assert answer["trips"].isna().all()


def test_no_view_is_materialized_meanwhile(store: FeatureStore, server: RedisServer) -> None:
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
    before = everything(store)
    with lease(session, PROJECT, "drivers"), pytest.raises(MaterializationBusy, match="'drivers'"):
        Eraser(store, "driver=7").erase()
    session.close()
    assert everything(store) == before
    assert Eraser(store, "driver=7").erase().is_proven


@pytest.mark.parametrize(
    ("key", "error", "said"),
    [
        ("", InputError, "column=value"),
        ("fahrer=7", UnknownObject, "'fahrer'.*'driver'"),
        ("driver=seven", WrongType, "'driver'.*INT64"),
        ("driver", InputError, "'driver'"),
    ],
)
def test_a_wrong_key_is_refused_by_name(store: FeatureStore, key: str, error: type[LarderError], said: str) -> None:
    with pytest.raises(error, match=said):
        Eraser(store, key)


def test_the_command_counts_asks_erases_and_proves(store: FeatureStore, repo: Path) -> None:
    counted = command(repo, "driver=7", "--dry-run", "--json")
    told = json.loads(counted.stdout)
    assert (counted.exit_code, told["redis"]) == (0, {"keys": 4, "rows": 4})
    assert sorted(file["rows"] for file in told["landed_files"]) == [1, 3]
    # Nobody can be asked here, so nothing is done without --yes.
    assert isinstance(command(repo, "driver=7").exception, InputError)
    assert everything(store)[0] == [0, 1, 2]
    done = command(repo, "driver=7", "--yes")
    assert done.exit_code == 0, done.output
    assert "Redis: erased 4 rows of 4 keys" in done.stdout
    assert "landed files: erased 4 rows of 2 files" in done.stdout
    assert "proof: 4 erased keys looked up, none found; no row left in Redis or landed files" in done.stdout
    assert f"1 rows in {repo / 'data/drivers.parquet'}" in done.stdout
    again = json.loads(command(repo, "driver=7", "--yes", "--json").stdout)
    assert (again["is_proven"], again["erased"]["redis"]["rows"], again["left"]["landed_files"]) == (True, 0, [])


def test_what_was_written_meanwhile_is_told_and_the_command_fails(
    store: FeatureStore, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store import erasure

    original = erasure.erase_keys

    def pushed_meanwhile(*arguments: Any) -> Any:
        erased = original(*arguments)
        store.push("drivers_push", rows("drivers", 3), to=PushMode.ONLINE_AND_OFFLINE)
        return erased

    monkeypatch.setattr(erasure, "erase_keys", pushed_meanwhile)
    done = command(repo, "driver=7", "--yes")
    assert done.exit_code == 1
    assert "NOT ERASED: 1 rows of 1 keys are in Redis, 1 rows were found by lookups" in done.stdout
    assert "written meanwhile, or still read" in done.stdout


def test_a_source_that_cannot_be_searched_is_told_and_the_command_fails(store: FeatureStore, repo: Path) -> None:
    (repo / "data/drivers.parquet").unlink()
    done = command(repo, "driver=7", "--yes")
    assert done.exit_code == 1
    assert "not searched: source 'drivers_file'" in done.stdout
    assert everything(store)[0] == [None, 1, 2]


def test_a_cluster_is_erased_from_node_by_node(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    (tmp_path / "redis").mkdir()
    with ExitStack() as stack:
        nodes = stack.enter_context(private_cluster(tmp_path / "redis"))
        address = ",".join(node.address for node in nodes)
        store = filled(repo, address, redis_type="redis_cluster")
        erasure = Eraser(store, "driver=7").erase()
        assert (erasure.redis.keys, erasure.redis.rows, erasure.is_proven) == (4, 4, True)
        assert everything(store) == [[None, 1, 2], [None, None, None, 3, 4, 5, 6, 7, 8], [0, 1, 2]]


def test_a_master_that_sentinel_names_is_erased_and_so_are_its_replicas(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    folders = [tmp_path / name for name in ("master", "replica", "sentinel")]
    for folder in folders:
        folder.mkdir()
    with (
        private_redis_tcp(folders[0]) as master,
        private_redis_tcp(folders[1], "--replicaof", "127.0.0.1", str(master.port)) as replica,
        private_sentinel(folders[2], master, "larder") as watcher,
        replica.client() as copy,
    ):
        store = filled(repo, watcher.address, redis_type="redis_sentinel", sentinel_master="larder")
        held = master.client().dbsize()
        poll_until(lambda: copy.dbsize() == held, what="the replica has all rows")
        erasure = Eraser(store, "driver=7").erase()
        assert (erasure.redis.keys, erasure.redis.rows, erasure.is_proven) == (4, 4, True)
        assert everything(store) == [[None, 1, 2], [None, None, None, 3, 4, 5, 6, 7, 8], [0, 1, 2]]
        poll_until(lambda: copy.dbsize() == held - 4, what="the replica has erased them too")
