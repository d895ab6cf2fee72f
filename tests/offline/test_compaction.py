"""Compaction: the same rows in the same order, at every moment and for everybody, in fewer files."""

import fcntl
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, PushSource
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.compact import run
from cli.main import app
from store.errors import SourceError, SourceUnreadable, UnknownObject
from store.offline import compaction
from store.offline.compaction import compact, planned_compaction
from store.offline.landed_files import ReadGuard, ScratchFile, list_landed, publish_next
from store.offline.landing import land_rows
from store.offline.sources import open_source
from tests.offline.feature_stores import DRIVER, config_for, driver_view, instants, store_with, write

ROOT = Path(__file__).parent.parent.parent


def land(folder: Path, numbers: Sequence[int], name: str = "n", kind: pa.DataType | None = None) -> Path:
    scratch = ScratchFile(folder)
    pq.write_table(pa.table({name: pa.array(numbers, kind or pa.int64())}), scratch.file, row_group_size=3)
    scratch.sync()
    return publish_next(scratch, 0)


def rows_of(folder: Path) -> list[Any]:
    """Returns the rows as a reader sees them."""
    guard = ReadGuard(folder)
    tables = [pq.read_table(folder / file.name) for file in list_landed(folder).files]
    guard.drop()
    return [row for table in tables for row in table.to_pylist()]


def parquet_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!.]*.parquet"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stats.landed"


def test_small_files_become_one_with_the_same_rows_in_the_same_order(folder: Path) -> None:
    for start in range(0, 50, 5):
        land(folder, range(start, start + 5))
    before = rows_of(folder)
    report = compact(folder)
    assert [(len(merge.parts), merge.rows) for merge in report.merges] == [(10, 50)]
    assert report.removed == 10
    [only] = parquet_files(folder)
    assert rows_of(folder) == before == [{"n": n} for n in range(50)]
    assert pq.ParquetFile(only).num_row_groups == 1
    assert compact(folder).merges == ()
    assert parquet_files(folder) == [only]


def test_what_lands_after_a_compaction_stands_after_its_rows(folder: Path) -> None:
    for number in range(3):
        land(folder, [number])
    compact(folder)
    land(folder, [3])
    assert rows_of(folder) == [{"n": n} for n in range(4)]
    compact(folder)
    land(folder, [4])
    assert len(parquet_files(folder)) == 2
    assert rows_of(folder) == [{"n": n} for n in range(5)]


def test_only_neighbours_of_one_schema_that_larder_named_are_merged(folder: Path) -> None:
    land(folder, [0])
    land(folder, [1])
    land(folder, [2], kind=pa.int32())
    land(folder, [3], kind=pa.int32())
    own = land(folder, [4], kind=pa.int32())
    # A file that somebody put there himself, between two of ours, stays and keeps its place.
    foreign = own.with_name(f"{own.stem}x.parquet")
    pq.write_table(pa.table({"n": pa.array([5], pa.int32())}), foreign)
    land(folder, [6], kind=pa.int32())
    report = compact(folder)
    assert [len(merge.parts) for merge in report.merges] == [2, 3]
    assert foreign.exists()
    assert [row["n"] for row in rows_of(folder)] == list(range(7))


def test_large_files_are_left_alone_and_merged_ones_end_at_the_bound(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [land(folder, range(count)).stat().st_size for count in (1, 1, 1, 1, 5_000, 1)]
    monkeypatch.setattr(compaction, "COMPACT_SMALL_BYTES", sizes[4])
    monkeypatch.setattr(compaction, "COMPACT_FILE_BYTES_MAX", 3 * sizes[0])
    assert [len(merge.parts) for merge in planned_compaction(folder).merges] == [3]
    monkeypatch.setattr(compaction, "COMPACT_SMALL_BYTES", sizes[4] + 1)
    monkeypatch.setattr(compaction, "COMPACT_FILE_BYTES_MAX", sum(sizes))
    assert [len(merge.parts) for merge in planned_compaction(folder).merges] == [6]


@pytest.mark.parametrize(("name", "limit"), [("COMPACT_ROW_GROUP_ROWS_MAX", 4_000), ("COMPACT_ROW_GROUP_BYTES_MAX", 0)])
def test_rows_are_held_a_row_group_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    for start in range(0, 20_000, 5_000):
        land(folder, range(start, start + 5_000))
    monkeypatch.setattr(compaction, name, limit)
    compact(folder)
    file = pq.ParquetFile(parquet_files(folder)[0])
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert max(groups) <= 4_000
    assert [row["n"] for row in rows_of(folder)] == list(range(20_000))


def test_types_of_every_kind_are_the_same_afterwards(folder: Path) -> None:
    table = pa.table({
        "text": pa.array(["a", None]).dictionary_encode(), "when": pa.array([1, None], pa.timestamp("ns", "UTC")),
        "many": pa.array([[[1], None], None]), "kept": pa.array([{"a": 1, "b": ["x"]}, None]),
        "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int32())), "none": pa.nulls(2),
        "money": pa.array([1, None], pa.int64()).cast(pa.decimal128(38, 2)),
        "wide": pa.array(["a", None], pa.large_string()),
    })  # fmt: skip
    for _ in range(3):
        scratch = ScratchFile(folder)
        pq.write_table(table, scratch.file)
        publish_next(scratch, 0)
    before, schema = rows_of(folder), pq.read_schema(parquet_files(folder)[0])
    assert len(compact(folder).merges) == 1
    assert rows_of(folder) == before
    assert pq.read_schema(parquet_files(folder)[0]).equals(schema)


def test_a_reader_keeps_the_files_that_it_has_listed(repo: Path) -> None:
    write(repo, {"driver_id": pa.array([1]), "event_timestamp": instants(1), "trips": pa.array([1])})
    store = store_with(repo, [DRIVER, driver_view()])
    source = store.get_feature_view("driver_stats").batch_source
    for trips in (2, 3):
        rows = {"driver_id": [1], "event_timestamp": instants(1), "trips": [trips]}
        land_rows(store.config, source, pa.table(rows))
    folder = repo / "data/stats.parquet.landed"
    asked = pa.table({"driver_id": [1], "event_timestamp": instants(5)})
    job = store.get_historical_features(asked, ["driver_stats:trips"])
    report = compact(folder)
    assert (report.removed, report.still_read) == (0, 2)
    # A later reader takes the merged file alone, and the earlier one still finds its own.
    assert len(open_source(store.config, source).files) == 2
    later = store.get_historical_features(asked, ["driver_stats:trips"])
    for each in (job, later):
        assert each.to_arrow().column("trips").to_pylist() == [3]
    del job, later, each
    assert compact(folder).removed == 2
    assert len(parquet_files(folder)) == 1


def test_a_file_without_a_reader_goes_although_another_folder_is_read(tmp_path: Path) -> None:
    one, other = tmp_path / "one.landed", tmp_path / "other.landed"
    for folder in (one, other):
        land(folder, [1])
        land(folder, [2])
    guard = ReadGuard(other)
    assert compact(one).removed == 2
    assert compact(other).still_read == 2
    guard.drop()


def test_a_second_compaction_waits_for_the_first(folder: Path) -> None:
    land(folder, [1])
    land(folder, [2])
    with (folder / ".compaction.lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(compact, folder)
        assert len(parquet_files(folder)) == 2
        assert not second.done()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert len(second.result(60).merges) == 1


def test_unfinished_files_of_killed_writers_go_and_those_of_living_ones_stay(folder: Path) -> None:
    land(folder, [1])
    living, killed = ScratchFile(folder), ScratchFile(folder)
    pq.write_table(pa.table({"n": [2]}), living.file)
    killed.file.close()
    assert compact(folder).abandoned == 1
    assert not killed.path.exists()
    living.sync()
    publish_next(living, 0)
    assert rows_of(folder) == [{"n": 1}, {"n": 2}]


def test_a_dry_run_changes_nothing(folder: Path) -> None:
    land(folder, [1])
    land(folder, [2])
    ScratchFile(folder).file.close()
    before = sorted(folder.iterdir())
    assert [merge.rows for merge in planned_compaction(folder).merges] == [2]
    assert sorted(folder.iterdir()) == before


def test_a_damaged_file_is_named_and_nothing_is_merged(folder: Path) -> None:
    land(folder, [1])
    torn = land(folder, range(100))
    land(folder, [2])
    torn.write_bytes(torn.read_bytes()[:-100])
    before = parquet_files(folder)
    with pytest.raises(SourceUnreadable, match=torn.name):
        compact(folder)
    assert parquet_files(folder) == before


def test_damage_that_shows_while_merging_leaves_all_in_place(folder: Path) -> None:
    land(folder, [1])
    torn = land(folder, range(100_000))
    content = bytearray(torn.read_bytes())
    content[4:1_000] = b"\xff" * 996
    torn.write_bytes(content)
    before = parquet_files(folder)
    with pytest.raises(SourceUnreadable, match=torn.name):
        compact(folder)
    assert parquet_files(folder) == before
    assert list(folder.glob(".staged-*")) == []


def test_no_room_for_the_merged_file_is_said_and_leaves_all_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "stats.landed"
    for start in range(0, 100_000, 50_000):
        land(folder, range(start, start + 50_000))
    before = parquet_files(folder)
    # The bound on file sizes stands for a full disk: the kernel answers a write with an error in the same place.
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    bounds = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, bounds[1]))
    try:
        with pytest.raises(SourceError, match="cannot be merged: File too large"):
            compact(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)
        signal.signal(signal.SIGXFSZ, ignored)
    assert parquet_files(folder) == before
    assert list(folder.glob(".staged-*")) == []


def test_a_missing_folder_has_nothing_to_merge(folder: Path) -> None:
    assert compact(folder) == planned_compaction(folder) == compaction.CompactionReport()
    assert not folder.exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["land", "land", "land", "wide", "compact", "read", "end"]), max_size=25))
def test_rows_and_order_are_the_same_however_landing_reading_and_compacting_alternate(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("property") / "stats.landed"
    folder.mkdir()
    landed: list[int] = []
    readers: list[tuple[ReadGuard, list[Path], int]] = []
    for step in steps:
        if step == "compact":
            compact(folder)
        elif step == "read":
            guard = ReadGuard(folder)
            readers.append((guard, [folder / file.name for file in list_landed(folder).files], len(landed)))
        elif step == "end" and readers:
            guard, paths, count = readers.pop(0)
            found = [n for path in paths for n in pq.read_table(path).column("n").to_pylist()]
            assert found == landed[:count]
            guard.drop()
        elif step in {"land", "wide"}:
            landed.append(len(landed))
            land(folder, landed[-1:], kind=pa.int32() if step == "land" else pa.int64())
        assert [row["n"] for row in rows_of(folder)] == landed
    for guard, *_ in readers:
        guard.drop()
    compact(folder)
    assert list_landed(folder).covered == ()
    assert [row["n"] for row in rows_of(folder)] == landed


def test_readers_beside_writers_and_compactions_see_a_beginning_of_what_lands(folder: Path) -> None:
    folder.mkdir()
    seen: list[list[int]] = []
    is_over = threading.Event()

    def write_all(writer: int) -> None:
        for number in range(60):
            land(folder, [writer * 1_000 + number])

    def read_all() -> None:
        while not is_over.is_set():
            seen.append([row["n"] for row in rows_of(folder)])

    def compact_all() -> None:
        while not is_over.is_set():
            compact(folder)

    with ThreadPoolExecutor(6) as pool:
        others = [pool.submit(read_all), pool.submit(read_all), pool.submit(compact_all)]
        for writer in [pool.submit(write_all, number) for number in range(3)]:
            writer.result()
        is_over.set()
        for other in others:
            other.result()
    final = [row["n"] for row in rows_of(folder)]
    assert sorted(final) == sorted(writer * 1_000 + number for writer in range(3) for number in range(60))
    for writer in range(3):
        assert [n for n in final if n // 1_000 == writer] == sorted(n for n in final if n // 1_000 == writer)
    assert [found for found in seen if found != final[: len(found)]] == []
    assert len({len(found) for found in seen}) > 3, "the readers did not run beside the writers"


def killed_at_each_step(how: str, tmp_path: Path) -> Path:
    template = tmp_path / "template"
    for start in range(0, 8, 2):
        land(template, [start, start + 1])
    # An earlier compaction, whose replaced files somebody still read.
    guard = ReadGuard(template)
    assert compact(template).still_read == 4
    guard.drop()
    land(template, [8])
    target = tmp_path / "killed"
    script = Path(__file__).with_name("killed_steps.py")
    subprocess.run(
        [sys.executable, str(script), how, str(template), str(target), "land", "compact"], cwd=ROOT, check=True
    )
    return target


def check_killed_compactions(folders: Sequence[Path]) -> None:
    for folder in folders:
        assert [row["n"] for row in rows_of(folder)] == list(range(9)), folder.name
        land(folder, [9])
        compact(folder)
        assert [row["n"] for row in rows_of(folder)] == list(range(10)), folder.name
        assert len(parquet_files(folder)) == 1
        assert list(folder.glob(".staged-*")) == []


def check_killed_landings(folders: Sequence[Path]) -> None:
    # The row is not there up to one step, and there from that on.
    found = [[row["n"] for row in rows_of(folder)] for folder in folders]
    assert sorted(found, key=len) == found
    assert {tuple(rows) for rows in found} == {tuple(range(9)), (*range(9), -1)}
    for folder in folders:
        land(folder, [10])
        compact(folder)
        assert list(folder.glob(".staged-*")) == []
        assert [row["n"] for row in rows_of(folder)][-1] == 10


@pytest.mark.parametrize(
    ("how", "steps_min"), [("files", (10, 30)), pytest.param("calls", (40, 200), marks=pytest.mark.long)]
)
def test_a_landing_or_compaction_killed_at_any_step_neither_doubles_nor_loses_rows(
    tmp_path: Path, how: str, steps_min: tuple[int, int]
) -> None:
    target = killed_at_each_step(how, tmp_path)
    landings, compactions = (sorted((target / work).iterdir()) for work in ("land", "compact"))
    assert (len(landings), len(compactions)) > steps_min
    assert len(compactions) > steps_min[1]
    check_killed_landings(landings)
    check_killed_compactions(compactions)


@pytest.fixture
def landed_repo(repo: Path) -> FeatureStore:
    write(repo, {"driver_id": pa.array([1]), "event_timestamp": instants(1), "trips": pa.array([1])})
    write(
        repo, {"driver_id": pa.array([1]), "event_timestamp": instants(1), "trips": pa.array([1])}, "data/other.parquet"
    )
    config = config_for(repo)
    (repo / "feature_store.yaml").write_text(
        "project: tests\nprovider: local\nregistry: {path: registry.db}\nentity_key_serialization_version: 3\n"
        "offline_store: {type: store.offline.DuckDBOfflineStore}\nonline_store: {type: sqlite, path: online.db}\n"
    )
    view, other = driver_view(), driver_view("data/other.parquet", name="other_stats")
    store = store_with(repo, [DRIVER, view, other, PushSource(name="pushed", batch_source=view.batch_source)])
    for each in (view, other):
        for trips in (2, 3):
            rows = {"driver_id": [1], "event_timestamp": instants(1), "trips": [trips]}
            land_rows(config, each.batch_source, pa.table(rows))
    return store


def landed_counts(repo: Path) -> list[int]:
    return [len(parquet_files(repo / f"data/{name}.parquet.landed")) for name in ("stats", "other")]


@pytest.mark.parametrize(
    ("names", "counts"),
    [([], [1, 1]), (["driver_stats"], [1, 2]), (["pushed"], [1, 2]), (["other_stats_source", "driver_stats"], [1, 1])],
)
def test_the_command_merges_what_is_named_and_says_what_it_did(
    repo: Path, landed_repo: FeatureStore, capsys: pytest.CaptureFixture[str], names: list[str], counts: list[int]
) -> None:
    assert run(repo, names, is_dry_run=True) == 0
    assert "would merge 2 files (2 rows, 0.0 MB) into 1" in capsys.readouterr().out
    assert landed_counts(repo) == [2, 2]
    assert run(repo, names, is_dry_run=False) == 0
    assert "merged 2 files (2 rows, 0.0 MB) into 1; removed 2 replaced files" in capsys.readouterr().out
    assert landed_counts(repo) == counts
    assert run(repo, names, is_dry_run=False) == 0
    assert "nothing to merge" in capsys.readouterr().out


def test_the_command_line_takes_names_and_options(repo: Path, landed_repo: FeatureStore) -> None:
    done = CliRunner().invoke(app, ["compact", "driver_stats", "--repo", str(repo), "--dry-run"])
    assert (done.exit_code, landed_counts(repo)) == (0, [2, 2]), done.output
    done = CliRunner().invoke(app, ["compact", "driver_stats", "--repo", str(repo)])
    assert (done.exit_code, landed_counts(repo)) == (0, [1, 2]), done.output


def test_the_command_refuses_an_unknown_name_and_goes_on_after_a_damaged_source(
    repo: Path, landed_repo: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UnknownObject, match="'nothing'"):
        run(repo, ["driver_stats", "nothing"], is_dry_run=False)
    assert landed_counts(repo) == [2, 2]
    torn = parquet_files(repo / "data/stats.parquet.landed")[0]
    torn.write_bytes(b"PAR1")
    assert run(repo, [], is_dry_run=False) == 1
    told = capsys.readouterr()
    assert torn.name in told.err
    assert "other_stats_source: merged 2 files" in told.out
    assert landed_counts(repo) == [2, 1]


def test_errors_of_a_compaction_are_errors_of_larder(tmp_path: Path) -> None:
    folder = tmp_path / "stats.landed"
    land(folder, [1])
    land(folder, [2])
    (folder / ".compaction.lock").mkdir()
    with pytest.raises(SourceError, match=r"stats\.landed"):
        compact(folder)
