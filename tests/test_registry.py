"""The registry file is whole or refused, and a server keeps the last good one."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feast import FeatureView
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig

from store.errors import ConfigError, RegistryConflict, RegistryUnavailable
from store.feature_store import FeatureStore
from store.registry import AtomicFileRegistryStore
from store.snapshot import RegistrySnapshots, load_config
from tests.stores import config, make_store, user_view, yaml_of


@pytest.fixture
def registry(repo: Path) -> AtomicFileRegistryStore:
    return AtomicFileRegistryStore(RegistryConfig(path="data/registry.db"), repo)


def some_registry(padding: int = 0) -> RegistryProto:
    proto = RegistryProto()
    proto.projects.add().spec.name = "shop"
    for number in range(padding):
        proto.entities.add().spec.name = f"entity {number}"
    return proto


def test_what_is_written_is_read(registry: AtomicFileRegistryStore) -> None:
    registry.update_registry_proto(some_registry())
    assert registry.get_registry_proto().projects[0].spec.name == "shop"
    assert registry.get_registry_proto().version_id


def test_a_missing_file_is_feasts_to_start(registry: AtomicFileRegistryStore) -> None:
    with pytest.raises(FileNotFoundError, match="feast apply"):
        registry.get_registry_proto()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9])
def test_a_torn_file_is_refused_even_where_protobuf_takes_it(registry: AtomicFileRegistryStore, part: float) -> None:
    registry.update_registry_proto(some_registry(padding=50))
    content = registry.path.read_bytes()
    registry.path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(RegistryUnavailable, match="torn"):
        registry.get_registry_proto()


def test_readers_never_see_half_a_registry(registry: AtomicFileRegistryStore) -> None:
    registry.update_registry_proto(some_registry(padding=2000))
    ended = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        while not ended.is_set():
            try:
                assert len(registry.get_registry_proto().entities) in (2000, 3000)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        registry.update_registry_proto(some_registry(padding=2000 + number % 2 * 1000))
    ended.set()
    reader.join()
    assert failures == []


def named(*names: str) -> list[FeatureView]:
    return [user_view(name=name) for name in names]


def view_names(repo: Path) -> set[str]:
    store = opened(repo)
    return {view.name for view in store.list_feature_views()}


def opened(repo: Path) -> FeatureStore:
    return FeatureStore(repo_path=str(repo), config=config(repo, "redis://127.0.0.1:1"))


def test_two_applies_beside_each_other_both_stay(applied: Path) -> None:
    first, second = opened(applied), opened(applied)
    first.list_feature_views()
    second.list_feature_views()
    first.apply(named("one", "two"))
    second.apply(named("three"))
    first.apply(named("four"))
    assert view_names(applied) == {"users", "one", "two", "three", "four"}


def test_a_removal_and_an_addition_beside_each_other_both_stay(applied: Path) -> None:
    opened(applied).apply(named("one"))
    first, second = opened(applied), opened(applied)
    first.list_feature_views()
    second.list_feature_views()
    first.registry.delete_feature_view("one", first.project)
    second.apply(named("two"))
    assert view_names(applied) == {"users", "two"}


def test_intervals_recorded_beside_an_apply_both_stay(applied: Path) -> None:
    first, second = opened(applied), opened(applied)
    view = first.get_feature_view("users")
    second.list_feature_views()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first.registry.apply_materialization(view, first.project, start, start + timedelta(days=1))
    second.apply(named("one"))
    assert opened(applied).get_feature_view("users").materialization_intervals == [(start, start + timedelta(days=1))]
    assert view_names(applied) == {"users", "one"}


def test_what_two_runs_note_about_one_view_both_stays(applied: Path) -> None:
    first, second = opened(applied), opened(applied)
    start, day = datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)
    views = [store.registry.get_feature_view("users", store.project) for store in (first, second)]
    second.apply([user_view(ttl=timedelta(days=5))])
    first.registry.apply_materialization(views[0], first.project, start, start + day)
    second.registry.apply_materialization(views[1], second.project, start + day, start + 2 * day)
    view = opened(applied).get_feature_view("users")
    assert sorted(view.materialization_intervals) == [(start, start + day), (start + day, start + 2 * day)]
    assert view.ttl == timedelta(days=5)


def test_two_changes_of_one_object_are_refused_by_name_and_the_first_stays(applied: Path) -> None:
    first, second = opened(applied), opened(applied)
    first.list_feature_views()
    second.list_feature_views()
    first.apply([user_view(ttl=timedelta(days=2))])
    changed = second.registry.get_feature_view("users", second.project, allow_cache=True)
    changed.ttl = timedelta(days=3)
    with pytest.raises(RegistryConflict, match="'users'"):
        second.registry.apply_feature_view(changed, second.project)
    assert opened(applied).get_feature_view("users").ttl == timedelta(days=2)


def test_teardown_removes_the_file_and_may_be_repeated(registry: AtomicFileRegistryStore) -> None:
    registry.update_registry_proto(some_registry())
    registry.teardown()
    registry.teardown()
    assert not registry.path.exists()


@pytest.fixture
def applied(repo: Path) -> Path:
    """A repo with definitions applied; its Redis is never asked for."""
    make_store(repo, "redis://127.0.0.1:1")
    return repo


def snapshots_of(repo: Path) -> RegistrySnapshots:
    return RegistrySnapshots(config(repo, "redis://127.0.0.1:1"), repo)


def test_a_snapshot_is_renewed_when_the_registry_changes(applied: Path) -> None:
    snapshots = snapshots_of(applied)
    snapshots.refresh()
    first = snapshots.current()
    snapshots.refresh()
    assert snapshots.current() is first
    first.store.apply([user_view(name="more")])
    snapshots.refresh()
    assert snapshots.problem is None
    assert {view.name for view in snapshots.current().store.list_feature_views()} == {"users", "more"}


@pytest.mark.parametrize("content", [None, b"", b"\x07", "other"])
def test_a_broken_registry_leaves_the_last_good_one_and_is_named(applied: Path, content: bytes | str | None) -> None:
    snapshots = snapshots_of(applied)
    snapshots.refresh()
    good = snapshots.current()
    path = applied / "data" / "registry.db"
    kept = path.read_bytes()
    if content is None:
        path.unlink()
    elif content == "other":
        other = RegistryProto(version_id="x")
        other.projects.add().spec.name = "other"
        path.write_bytes(other.SerializeToString())
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    snapshots.refresh()
    assert snapshots.current() is good
    assert snapshots.problem is not None
    assert "registry" in snapshots.problem
    path.write_bytes(kept)
    snapshots.refresh()
    assert snapshots.problem is None


def test_before_the_first_apply_there_is_nothing_to_serve_and_nothing_is_written(repo: Path) -> None:
    snapshots = snapshots_of(repo)
    snapshots.refresh()
    with pytest.raises(RegistryUnavailable, match="feast apply"):
        snapshots.current()
    assert not (repo / "data" / "registry.db").exists()


def test_a_folder_without_settings_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"feature_store\.yaml"):
        load_config(tmp_path)


def test_settings_that_cannot_be_understood_are_named(tmp_path: Path) -> None:
    text = yaml_of("embedded").replace("store.online.RedisOnlineStore", "store.online.NoSuchOnlineStore")
    (tmp_path / "feature_store.yaml").write_text(text)
    with pytest.raises(ConfigError, match="NoSuchOnlineStore"):
        load_config(tmp_path)
