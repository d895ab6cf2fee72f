"""Training sets saved where Feast's saved datasets go: into folders and Delta tables, and read back from there."""

import os
import resource
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import FeatureStore
from feast.data_format import DeltaFormat, ParquetFormat
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

from store.errors import DefinitionError, OfflineStoreError, OutOfSpace, SourceUnreadable, WrongType
from store.offline import read_manifest
from store.offline.jobs import LarderRetrievalJob
from store.offline.saved import DescribedBatches
from store.offline.saved_delta import save_as_delta
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write
from tests.offline.test_delta import WithoutDeltalake

HOUR = 3_600_000_000
SAVED = "data/saved"
INSIDE = "data/saved/training_set.parquet"
FORMATS = pytest.mark.parametrize("file_format", [ParquetFormat(), DeltaFormat()], ids=["parquet", "delta"])


def rows(*hours: int, **columns: Any) -> pa.Table:
    times = instants(*(hour * HOUR for hour in hours))
    return pa.table({"driver_id": pa.array([1] * len(hours), pa.int64()), "event_timestamp": times} | columns)


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    write(repo, rows(1, 2, trips=pa.array([10, 20])).to_pydict() | {"event_timestamp": instants(HOUR, 2 * HOUR)})
    return store_with(repo, [DRIVER, driver_view()])


def job_of(store: FeatureStore, asked: pa.Table) -> LarderRetrievalJob:
    job = store.get_historical_features(asked, ["driver_stats:trips"])
    assert isinstance(job, LarderRetrievalJob)
    return job


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def delta_rows(folder: Path) -> pa.Table:
    return pa.table(DeltaTable(folder).to_pyarrow_table())


@pytest.mark.filterwarnings("ignore:(Saving|Retrieving) dataset.* experimental feature:RuntimeWarning")  # Feast's own
@FORMATS
@pytest.mark.parametrize("is_made", [True, False])
def test_a_saved_dataset_is_read_back_as_it_was(
    repo: Path, store: FeatureStore, file_format: Any, is_made: bool
) -> None:
    if is_made:
        (repo / SAVED).mkdir()
    job = job_of(store, rows(2, 0, 1, 2))
    expected = job.to_df()
    storage = SavedDatasetFileStorage(SAVED, file_format)
    for _ in range(2):
        saved = store.create_saved_dataset(from_=job, name="saved", storage=storage, allow_overwrite=True)
        # Feast asks for the columns of a saved dataset in an order of its own.
        assert saved.to_df()[list(expected)].equals(expected)
    assert store.get_saved_dataset("saved").to_df()[list(expected)].equals(expected)
    assert read_manifest(repo / SAVED) == job.manifest()


def test_a_folder_holds_one_file_that_is_replaced_only_when_asked_to(repo: Path, store: FeatureStore) -> None:
    (repo / SAVED).mkdir()
    job_of(store, rows(1)).to_parquet(SAVED)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job_of(store, rows(1, 2)).to_parquet(SAVED)
    assert pq.read_table(repo / INSIDE).num_rows == 1
    job_of(store, rows(1, 2)).to_parquet(SAVED, allow_overwrite=True)
    assert pq.read_table(repo / INSIDE).num_rows == 2
    assert names_in(repo / SAVED) == ["training_set.parquet"]


@pytest.mark.parametrize("other", ["part-0.parquet", ".hidden", "folder/x"])
@FORMATS
def test_a_folder_with_anything_else_is_refused_and_stays(
    repo: Path, store: FeatureStore, file_format: Any, other: str
) -> None:
    stranger = repo / SAVED / other
    stranger.parent.mkdir(parents=True)
    stranger.write_text("mine")
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job_of(store, rows(1)).persist(SavedDatasetFileStorage(SAVED, file_format), allow_overwrite=True)
    assert [path for path in (repo / SAVED).rglob("*") if path.is_file()] == [stranger]


def test_neither_format_takes_the_place_of_the_other(repo: Path, store: FeatureStore) -> None:
    job = job_of(store, rows(1))
    job.to_delta(SAVED)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.to_parquet(SAVED, allow_overwrite=True)
    folder = repo / "data/folder"
    folder.mkdir()
    job.to_parquet(folder)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.to_delta(folder, allow_overwrite=True)
    assert read_manifest(repo / SAVED) == read_manifest(folder) == job.manifest()


def test_what_killed_runs_left_is_in_nobodys_way(repo: Path, store: FeatureStore) -> None:
    (repo / SAVED / "_delta_log").mkdir(parents=True)
    for name in (".training_set-1.parquet.x", "training_set-1.parquet"):
        (repo / SAVED / name).write_text("half")
    job = job_of(store, rows(1))
    job.to_delta(SAVED)
    assert delta_rows(repo / SAVED).num_rows == 1
    folder = repo / "data/folder"
    folder.mkdir()
    (folder / ".training_set.parquet.x").write_text("half")
    job.to_parquet(folder)
    assert read_manifest(folder) == job.manifest()


def test_a_delta_table_is_replaced_whole_by_one_commit_and_only_when_asked_to(repo: Path, store: FeatureStore) -> None:
    write_deltalake(repo / SAVED, pa.table({"p": [1, 2], "q": [1, 2]}), partition_by=["p"])
    job = job_of(store, rows(2, 1))
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.to_delta(SAVED)
    assert DeltaTable(repo / SAVED).version() == 0
    written = job.to_delta(SAVED, allow_overwrite=True)
    assert DeltaTable(repo / SAVED).version() == 1
    assert delta_rows(repo / SAVED).equals(job.to_arrow())
    assert DeltaTable(repo / SAVED).metadata().partition_columns == []
    assert read_manifest(repo / SAVED) == written == job.manifest()
    assert pa.table(DeltaTable(repo / SAVED, version=0).to_pyarrow_table()).num_rows == 2


def test_one_training_set_has_one_digest_whatever_it_is_saved_as(repo: Path, store: FeatureStore) -> None:
    asked = rows(1, 2, small=pa.array([1, 255], pa.uint8()), moment=instants(1, None, unit="ns"))
    in_file = job_of(store, asked).to_parquet("data/set.parquet")
    in_table = job_of(store, asked).to_delta(SAVED)
    assert in_file == in_table
    assert delta_rows(repo / SAVED).schema.field("small").type == pa.int16()


def test_no_manifest_is_read_from_a_table_that_somebody_else_changed(repo: Path, store: FeatureStore) -> None:
    job = job_of(store, rows(1, 2))
    job.to_delta(SAVED)
    write_deltalake(repo / SAVED, job.to_arrow(), mode="append")
    with pytest.raises(SourceUnreadable, match=r"data/saved' holds 2 files.*save the training set again"):
        read_manifest(repo / SAVED)
    DeltaTable(repo / SAVED).optimize.compact()
    with pytest.raises(SourceUnreadable, match="has no manifest"):
        read_manifest(repo / SAVED)


def test_an_answer_without_rows_is_a_table_with_its_columns(repo: Path, store: FeatureStore) -> None:
    job = job_of(store, rows().slice(0, 0))
    assert job.to_delta(SAVED)["rows"] == 0
    assert delta_rows(repo / SAVED).schema.names == ["driver_id", "event_timestamp", "trips"]
    assert read_manifest(repo / SAVED) == job.manifest()


US, NS = pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC")
WHEN = datetime(2024, 1, 1, 5, 0, 0, 1, UTC)
HELD: list[tuple[pa.Array, pa.DataType]] = [
    (pa.array([0, 255, None], pa.uint8()), pa.int16()),
    (pa.array([2**16 - 1], pa.uint16()), pa.int32()),
    (pa.array([2**32 - 1], pa.uint32()), pa.int64()),
    (pa.array([2**63 - 1], pa.uint64()), pa.int64()),
    (pa.array([1.5, None], pa.float16()), pa.float32()),
    (pa.array([WHEN, None], NS), US),
    (pa.array([WHEN], pa.timestamp("us", "Europe/Berlin")), US),
    (pa.array([WHEN.replace(microsecond=0, tzinfo=None)], pa.timestamp("s")), pa.timestamp("us")),
    (pa.array([date(2024, 1, 1), None], pa.date64()), pa.date32()),
    (pa.array([Decimal("1.50"), None], pa.decimal256(38, 2)), pa.decimal128(38, 2)),
    (pa.array(["a", None], pa.string_view()), pa.string()),
    (pa.array(["a", None]).dictionary_encode(), pa.string()),
    (pa.array([WHEN, None], NS).dictionary_encode(), US),
    (pa.array([[255, None], None], pa.list_(pa.uint8())), pa.list_(pa.int16())),
    (pa.array([[WHEN], None], pa.large_list(NS)), pa.large_list(US)),
    (pa.array([[1, 255], None], pa.list_(pa.uint8(), 2)), pa.list_(pa.int16(), 2)),
    (
        pa.array([{"a": 255, "b": [WHEN]}, None], pa.struct({"a": pa.uint8(), "b": pa.list_(NS)})),
        pa.struct({"a": pa.int16(), "b": pa.list_(US)}),
    ),
    (pa.array([[("k", 255)], None], pa.map_(pa.string(), pa.uint8())), pa.map_(pa.string(), pa.int16())),
]


@pytest.mark.parametrize(("column", "expected"), HELD, ids=lambda value: str(getattr(value, "type", "")))
def test_every_value_is_kept_where_delta_has_another_type(
    tmp_path: Path, column: pa.Array, expected: pa.DataType
) -> None:
    batch = pa.record_batch({"x": column})
    save_as_delta(tmp_path, DescribedBatches({}, iter([batch, batch])), allow_overwrite=False)
    [path] = DeltaTable(tmp_path).file_uris()
    stored = pq.read_table(path.removeprefix("file://"))
    assert stored.schema.field("x").type == expected
    assert stored.column("x").to_pylist() == column.to_pylist() * 2
    assert delta_rows(tmp_path).column("x").to_pylist() == column.to_pylist() * 2


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.nulls(2), r"has none for null; give it a type"),
        (pa.array([1], pa.time64("us")), r"none for time64\[us\]; cast it"),
        (pa.array([1], pa.duration("s")), r"none for duration\[s\]; cast it"),
        (pa.array([Decimal(1)], pa.decimal256(39, 0)), r"none for decimal256\(39, 0\)"),
        (pa.array([[1]], pa.list_(pa.time32("s"))), r"'list<item: time32\[s\]>', and .* none for time32\[s\]"),
        (pa.array([{}], pa.struct([])), r"none for struct<>"),
        (pa.array([1], NS), r"value of timestamp\[ns, tz=UTC\] cannot be held.*lose data: 1\); round the column"),
        (pa.array([[1]], pa.list_(NS)), r"value of list<item: timestamp\[ns, tz=UTC\]> cannot be held"),
        (
            pa.array([2**63], pa.uint64()),
            r"uint64 cannot be held by a Delta table, which has int64.*9223372036854775808",
        ),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_what_delta_cannot_hold_is_refused_by_column(tmp_path: Path, column: pa.Array, words: str) -> None:
    batch = pa.record_batch({"fine": column.is_null(), "x": column})
    with pytest.raises(WrongType, match=f"column 'x'.*{words}.*save as Parquet"):
        save_as_delta(tmp_path, DescribedBatches({}, iter([batch])), allow_overwrite=False)
    assert names_in(tmp_path) == []


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    for batch in (pa.record_batch({"a": [1], "A": [1]}), pa.record_batch({"x": [{"a": 1, "A": 1}]})):
        with pytest.raises(WrongType, match=r"columns 'a' and 'A' have one name to a Delta table"):
            save_as_delta(tmp_path, DescribedBatches({}, iter([batch])), allow_overwrite=False)


def test_an_answer_that_breaks_off_leaves_the_earlier_table_and_nothing_else(tmp_path: Path) -> None:
    fits, fails = pa.record_batch({"x": pa.array([1000], NS)}), pa.record_batch({"x": pa.array([1], NS)})
    save_as_delta(tmp_path, DescribedBatches({}, iter([fits])), allow_overwrite=False)
    before = names_in(tmp_path)
    with pytest.raises(WrongType):
        save_as_delta(tmp_path, DescribedBatches({}, iter([fits, fails])), allow_overwrite=True)
    assert (names_in(tmp_path), DeltaTable(tmp_path).version()) == (before, 0)


def test_a_full_disk_leaves_the_earlier_table_and_nothing_else(repo: Path, store: FeatureStore) -> None:
    job_of(store, rows(1)).to_delta(SAVED)
    before = names_in(repo / SAVED)
    noise = pa.array([os.urandom(32).hex() for _ in range(20_000)])
    job = job_of(store, rows(*[1] * len(noise), noise=noise))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # to a writer, that is a disk without room
    try:
        with pytest.raises(OutOfSpace, match="data/saved/"):
            job.to_delta(SAVED, allow_overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names_in(repo / SAVED) == before
    assert delta_rows(repo / SAVED).num_rows == 1


def test_a_table_that_another_writer_made_meanwhile_stays(tmp_path: Path) -> None:
    def slow() -> Any:
        yield pa.record_batch({"x": [1]})
        write_deltalake(tmp_path, pa.table({"x": [7]}))

    with pytest.raises(SavedDatasetLocationAlreadyExists):
        save_as_delta(tmp_path, DescribedBatches({}, slow()), allow_overwrite=False)
    assert delta_rows(tmp_path).column("x").to_pylist() == [7]
    assert [name for name in names_in(tmp_path) if name.startswith("training_set")] == []


def test_a_table_that_takes_no_overwrite_stays_and_says_so(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"x": [7]}), configuration={"delta.appendOnly": "true"})
    before = names_in(tmp_path)
    batches = DescribedBatches({}, iter([pa.record_batch({"x": [1]})]))
    with pytest.raises(OfflineStoreError, match=r"did not take the training set \(.*append-only"):
        save_as_delta(tmp_path, batches, allow_overwrite=True)
    assert names_in(tmp_path) == before
    assert DeltaTable(tmp_path).version() == 0


def test_a_table_with_a_broken_log_is_refused_and_stays(repo: Path, store: FeatureStore) -> None:
    job_of(store, rows(1)).to_delta(SAVED)
    (repo / SAVED / "_delta_log/00000000000000000000.json").write_text("{")
    before = names_in(repo / SAVED)
    with pytest.raises(SourceUnreadable, match=r"data/saved' cannot be read \(.*repair or remove it"):
        job_of(store, rows(1)).to_delta(SAVED, allow_overwrite=True)
    assert names_in(repo / SAVED) == before


def test_a_log_that_breaks_meanwhile_costs_no_file(tmp_path: Path) -> None:
    def slow() -> Any:
        yield pa.record_batch({"x": [1]})
        (tmp_path / "_delta_log").mkdir()
        (tmp_path / "_delta_log/00000000000000000000.json").write_text("{")

    with pytest.raises((SourceUnreadable, SavedDatasetLocationAlreadyExists)):
        save_as_delta(tmp_path, DescribedBatches({}, slow()), allow_overwrite=True)
    assert len([name for name in names_in(tmp_path) if name.startswith("training_set")]) == 1


def test_a_file_in_the_tables_place_is_refused_and_stays(repo: Path, store: FeatureStore) -> None:
    (repo / SAVED).write_text("mine")
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job_of(store, rows(1)).to_delta(SAVED, allow_overwrite=True)
    assert (repo / SAVED).read_text() == "mine"


@pytest.mark.parametrize("name", ["a b", "é", "p#q?r", "100%"])
def test_a_table_may_have_any_name(tmp_path: Path, name: str) -> None:
    batches = DescribedBatches({}, iter([pa.record_batch({"x": [1]})]))
    written = save_as_delta(tmp_path / name, batches, allow_overwrite=False)
    assert read_manifest(tmp_path / name) == written


def test_a_name_that_the_package_reads_as_another_is_refused(tmp_path: Path) -> None:
    batches = DescribedBatches({}, iter([pa.record_batch({"x": [1]})]))
    with pytest.raises(DefinitionError, match=r"a%20b' is to be a Delta table.*percent sign"):
        save_as_delta(tmp_path / "a%20b", batches, allow_overwrite=False)
    assert names_in(tmp_path) == []


def test_without_the_package_the_extra_is_named(
    repo: Path, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutDeltalake(), *sys.meta_path])
    with pytest.raises(DefinitionError, match=r"data/saved' is to be a Delta table.*install larder\[delta\]"):
        job_of(store, rows(1)).to_delta(SAVED)
    assert not (repo / SAVED).exists()
