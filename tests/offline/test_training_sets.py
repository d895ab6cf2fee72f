"""Training sets that are kept: whole or not there, with a manifest that says what they are and were made of."""

import os
import resource
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, Field, RequestSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import EntityRowsError, InputError, OutOfSpace, SourceUnreadable, WrongType
from store.offline import read_manifest
from store.offline.digest import TableDigest
from tests.offline.feature_stores import DRIVER, driver_view, instants, store_with, write

HOUR = 3_600_000_000
FEATURES = ["driver_stats:trips"]


def rows(*hours: int, **columns: Any) -> pa.Table:
    given_columns = {"driver_id": pa.array([1] * len(hours)), "event_timestamp": instants(*(h * HOUR for h in hours))}
    return pa.table(given_columns | columns)


def stats(*hours: int) -> dict[str, Any]:
    return {
        "driver_id": pa.array([1] * len(hours)),
        "event_timestamp": instants(*(hour * HOUR for hour in hours)),
        "trips": pa.array([hour * 10 for hour in hours]),
    }


@pytest.fixture
def store(repo: Path) -> FeatureStore:
    write(repo, stats(1, 2))
    return store_with(repo, [DRIVER, driver_view()])


def test_a_training_set_carries_its_manifest(repo: Path, store: FeatureStore) -> None:
    job = store.get_historical_features(rows(2, 1, 0), FEATURES)
    written = job.to_parquet("data/set.parquet")
    manifest = read_manifest(repo / "data/set.parquet")
    assert manifest == written == job.manifest()
    assert pq.read_table(repo / "data/set.parquet").equals(job.to_arrow())
    assert manifest["rows"] == 3
    assert manifest["features"] == FEATURES
    assert [column["name"] for column in manifest["columns"]] == ["driver_id", "event_timestamp", "trips"]
    [view] = manifest["views"]
    assert (view["name"], view["features"], len(view["fingerprint"]) > 0) == ("driver_stats", ["trips"], True)
    [source] = manifest["sources"]
    [file] = source["files"]
    assert (file["path"], file["bytes"]) == ("data/stats.parquet", (repo / "data/stats.parquet").stat().st_size)
    assert set(manifest["versions"]) >= {"larder", "feast", "duckdb", "pyarrow"}


def test_the_same_inputs_give_the_same_digest_and_others_another(repo: Path, store: FeatureStore) -> None:
    def digest(given_rows: pa.Table, **options: Any) -> str:
        return str(store.get_historical_features(given_rows, FEATURES, **options).manifest()["digest"])

    first = digest(rows(2, 1))
    assert digest(rows(2, 1)) == first
    assert digest(rows(2, 1).to_pandas()) != ""
    assert digest(rows(1, 2)) != first
    assert digest(rows(2, 1), full_feature_names=True) != first
    os.utime(repo / "data/stats.parquet", (1, 1))
    assert digest(rows(2, 1)) == first  # the content is the same, though the file is not
    write(repo, stats(1, 2) | {"trips": pa.array([10, 21])})
    assert digest(rows(2, 1)) != first


def test_a_changed_definition_has_another_fingerprint(repo: Path, store: FeatureStore) -> None:
    before = store.get_historical_features(rows(1), FEATURES).manifest()["views"]
    changed = store_with(repo, [DRIVER, driver_view(features={"trips": Float64})])
    after = changed.get_historical_features(rows(1), FEATURES).manifest()["views"]
    assert before[0]["fingerprint"] != after[0]["fingerprint"]


def test_a_training_set_replaces_another_only_when_asked_to(repo: Path, store: FeatureStore) -> None:
    job = store.get_historical_features(rows(1), FEATURES)
    job.to_parquet("data/set.parquet")
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.to_parquet("data/set.parquet")
    job.to_parquet(repo / "data/set.parquet", allow_overwrite=True)
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.to_parquet("data", allow_overwrite=True)
    assert [path.name for path in (repo / "data").iterdir() if path.name.startswith(".")] == []


def test_a_full_disk_leaves_the_earlier_training_set_and_nothing_else(repo: Path, store: FeatureStore) -> None:
    store.get_historical_features(rows(1), FEATURES).to_parquet("data/set.parquet")
    before = (repo / "data/set.parquet").read_bytes()
    noise = pa.array([os.urandom(32).hex() for _ in range(20_000)])
    job = store.get_historical_features(rows(*[1] * len(noise), noise=noise), FEATURES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # to a writer, that is a disk without room
    try:
        with pytest.raises(OutOfSpace, match=r"set\.parquet"):
            job.to_parquet("data/set.parquet", allow_overwrite=True)
        reader = pa.RecordBatchReader.from_batches(noise_rows(noise).schema, noise_rows(noise).to_batches())
        with pytest.raises(OutOfSpace, match="no room to keep the entity rows"):
            store.get_historical_features(reader, FEATURES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (repo / "data/set.parquet").read_bytes() == before
    assert sorted(path.name for path in (repo / "data").iterdir()) == ["set.parquet", "stats.parquet"]


def noise_rows(noise: pa.Array) -> pa.Table:
    return rows(*[1] * len(noise), noise=noise)


def test_a_file_without_a_manifest_is_refused(repo: Path, store: FeatureStore) -> None:
    with pytest.raises(SourceUnreadable, match="has no manifest"):
        read_manifest(repo / "data/stats.parquet")
    with pytest.raises(SourceUnreadable, match="cannot be read as Parquet"):
        read_manifest(repo / "data")


COLUMNS = {
    "whole": st.none() | st.integers(-(2**63), 2**63 - 1),
    "real": st.none() | st.floats(width=32),
    "flag": st.none() | st.booleans(),
    "text": st.none() | st.text(max_size=3),
    "bytes": st.none() | st.binary(max_size=3),
    "list": st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3),
    "struct": st.none()
    | st.fixed_dictionaries({"a": st.none() | st.integers(0, 3), "b": st.none() | st.text(max_size=2)}),
    "map": st.none() | st.dictionaries(st.text(max_size=2), st.none() | st.integers(0, 3), max_size=2),
}
SCHEMA = pa.schema(
    {
        "whole": pa.int64(),
        "real": pa.float64(),
        "flag": pa.bool_(),
        "text": pa.string(),
        "bytes": pa.binary(),
        "list": pa.list_(pa.int32()),
        "struct": pa.struct({"a": pa.int16(), "b": pa.string()}),
        "map": pa.map_(pa.string(), pa.int8()),
    }
)


def table_of(values: list[dict[str, Any]]) -> pa.Table:
    pairs = [row | {"map": None if row["map"] is None else list(row["map"].items())} for row in values]
    return pa.Table.from_pylist(pairs, SCHEMA)


def digest_of(table: pa.Table, rows_max: int) -> str:
    digest = TableDigest(table.schema)
    for batch in table.to_batches(max_chunksize=rows_max):
        digest.add(batch)
    return digest.hexdigest()


@settings(max_examples=150, deadline=None)
@given(values=st.lists(st.fixed_dictionaries(COLUMNS), max_size=8), cut=st.integers(1, 8), other=st.data())
def test_a_digest_tells_content_and_nothing_else(values: list[dict[str, Any]], cut: int, other: st.DataObject) -> None:
    table = table_of(values)
    expected = digest_of(table, 1_000)
    assert digest_of(table, cut) == expected
    assert digest_of(pa.concat_tables([table, table]).slice(len(values)).combine_chunks(), cut) == expected
    coded = table.set_column(3, "text", table.column("text").dictionary_encode())
    assert digest_of(coded, cut) == expected
    if values:
        place = other.draw(st.integers(0, len(values) - 1))
        name = other.draw(st.sampled_from(sorted(COLUMNS)))
        changed = [dict(row) for row in values]
        changed[place][name] = other.draw(COLUMNS[name])
        # Not `==`: the bits of 0.0 and -0.0 differ, and NaN is no other value than NaN.
        assert (digest_of(table_of(changed), cut) == expected) == (shown(table_of(changed)) == shown(table))


def shown(table: pa.Table) -> str:
    return repr(table.to_pylist())


@pytest.mark.parametrize("view", [pa.string_view(), pa.binary_view()], ids=str)
def test_text_in_a_layout_of_views_is_kept_and_counts(repo: Path, store: FeatureStore, view: pa.DataType) -> None:
    def saved(*texts: str | None) -> Any:
        job = store.get_historical_features(rows(1, 2, note=pa.array(texts, view)), FEATURES)
        return job.to_parquet("data/set.parquet", allow_overwrite=True)["digest"]

    assert saved("a", None) == saved("a", None) != saved(None, "a")
    assert pq.read_table(repo / "data/set.parquet").schema.field("note").type == view


def test_bytes_that_move_from_one_text_to_the_next_change_the_digest() -> None:
    first, second = (pa.table({"a": texts}) for texts in (["ab", "c"], ["a", "bc"]))
    assert digest_of(first, 10) != digest_of(second, 10)
    one, other = pa.table({"a": ["x"], "b": ["y"]}), pa.table({"b": ["x"], "a": ["y"]})
    assert digest_of(one, 10) != digest_of(other, 10)


UUIDS = pa.array([b"0123456789abcdef", None, b"0123456789abcdeg"], pa.uuid())
SAVED = {
    "interval": pa.array(pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3])),
    "json": pa.array(["1", None, "[]"], pa.json_()),
    "uuid": UUIDS,
    "uuids": pa.ListArray.from_arrays([0, 1, 1, 2], UUIDS.filter(UUIDS.is_valid())),
    "list_view": pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())),
    "large_list_view": pa.array([["a"], None, ["b", None]], pa.large_list_view(pa.string_view())),
}


@pytest.mark.parametrize("name", SAVED)
def test_extension_types_and_list_views_are_kept_and_count(repo: Path, store: FeatureStore, name: str) -> None:
    column = SAVED[name]

    def digest(order: list[int]) -> Any:
        job = store.get_historical_features(rows(1, 2, 0, note=column.take(pa.array(order))), FEATURES)
        return job.to_parquet("data/set.parquet", allow_overwrite=True)["digest"]

    assert digest([0, 1, 2]) == digest([0, 1, 2]) != digest([2, 1, 0])
    assert pq.read_table(repo / "data/set.parquet").schema.field("note").type == column.type
    table = pa.table({"note": column})
    assert digest_of(table, 1) == digest_of(table, 10)
    assert digest_of(table.slice(1), 1) == digest_of(table.take([1, 2]), 10) != digest_of(table, 10)


@pytest.mark.parametrize(
    "column",
    [
        pa.RunEndEncodedArray.from_arrays([2], [7]),
        pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
        pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        pa.array([{}, None], pa.struct([])),
        pa.array([b"", None], pa.binary(0)),
        pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array([{"a": 1}])),
        pa.array([[{}], None], pa.list_(pa.struct([]))),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_parquet_cannot_hold_is_refused_by_name_before_any_work(
    repo: Path, store: FeatureStore, column: pa.Array
) -> None:
    with pytest.raises((pa.ArrowException, OSError)):
        pq.write_table(pa.table({"note": column}), repo / "other.parquet")
    job = store.get_historical_features(rows(1, 2, note=column), FEATURES)
    (repo / "data/stats.parquet").unlink()  # so that any work would fail
    for save in (job.manifest, lambda: job.to_parquet("data/set.parquet")):
        with pytest.raises(WrongType, match="'note' has type"):
            save()


def empty(**kinds: pa.DataType) -> pa.Table:
    return pa.schema(kinds).empty_table()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (empty(**{"a\0struct<q": pa.struct({"y": pa.int64()})}), empty(a=pa.struct({"q\0struct<y": pa.int64()}))),
        (
            empty(a=pa.struct({"a: int64, b": pa.int64(), "c": pa.int64()})),
            empty(a=pa.struct({"a": pa.int64(), "b: int64, c": pa.int64()})),
        ),
        (empty(a=pa.list_(pa.int8(), 2)), empty(a=pa.list_(pa.int8(), 3))),
        (empty(a=pa.list_(pa.int8())), empty(a=pa.list_(pa.int16()))),
        (empty(a=pa.uuid()), empty(a=pa.binary(16))),
        (empty(a=pa.timestamp("us", "UTC")), empty(a=pa.timestamp("us"))),
        (empty(a=pa.timestamp("us", "UTC")), empty(a=pa.timestamp("us", "Asia/Tokyo"))),
    ],
)
def test_names_and_types_that_are_not_the_same_have_other_digests(one: pa.Table, other: pa.Table) -> None:
    assert digest_of(one, 10) == digest_of(one, 10) != digest_of(other, 10)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Etc/UTC")),
        (pa.list_(pa.field("l", pa.int64())), pa.list_(pa.field("item", pa.int64()))),
        (pa.struct({"a": pa.timestamp("us", "UTC")}), pa.struct({"a": pa.timestamp("us", "Etc/UTC")})),
    ],
)
def test_two_spellings_of_a_type_have_one_digest(one: pa.DataType, other: pa.DataType) -> None:
    assert str(one) != str(other)
    assert digest_of(empty(a=one), 10) == digest_of(empty(a=other), 10)


@on_demand_feature_view(
    sources=[driver_view(), RequestSource(name="asked", schema=[Field(name="bonus", dtype=Int64)])],
    schema=[Field(name="total", dtype=Int64)],
)
def computed(inputs: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    first = inputs["bonus"].iloc[0]
    if first == 1001:
        raise TypeError("cannot add these")
    if first == 1002:
        return pd.DataFrame({"total": inputs["bonus"] + 0.5})
    if first == 1003:
        return pd.DataFrame({"total": [1, 2, 3]})
    if first == 1004:
        return pd.DataFrame({"other": inputs["bonus"]})
    return pd.DataFrame({"total": inputs["trips"] + inputs["bonus"]})


QUIET = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # Feast's own, at apply


@QUIET
def test_on_demand_features_have_their_declared_type_in_every_batch(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view(), computed])
    asked = rows(0, 0, 1, 2, bonus=pa.array([1, 2, 3, None]))
    job = store.get_historical_features(asked, ["computed:total"])
    batches = list(job.to_arrow_batches(2))
    assert {str(batch.schema.field("total").type) for batch in batches} == {"int64"}  # also where all are null
    assert pa.Table.from_batches(batches).equals(job.to_arrow())
    assert job.to_arrow().column("total").to_pylist() == [None, None, 13, None]
    assert store.get_historical_features(asked.slice(0, 0), ["computed:total"]).to_arrow().num_rows == 0
    job.to_parquet("data/set.parquet")
    assert pq.read_table(repo / "data/set.parquet").equals(job.to_arrow())
    assert job.manifest()["on_demand_views"][0]["name"] == "computed"


@QUIET
@pytest.mark.parametrize(
    ("bonus", "words"),
    [
        (1001, "failed: TypeError: cannot add these"),
        (1002, "gave double for 'total', which is declared as int64"),
        (1003, "3 values of 'total' for 1 rows"),
        (1004, "0 values of 'total'"),
    ],
)
def test_a_function_that_does_not_keep_its_word_is_refused_by_name(repo: Path, bonus: int, words: str) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view(), computed])
    job = store.get_historical_features(rows(1, bonus=pa.array([bonus])), ["computed:total"])
    with pytest.raises(InputError, match=rf"'computed'.*{words}"):
        job.to_arrow()
    with pytest.raises(InputError, match=rf"'computed'.*{words}"):
        job.to_parquet("data/set.parquet")
    assert sorted(path.name for path in (repo / "data").iterdir()) == ["stats.parquet"]


@QUIET
def test_a_column_that_an_on_demand_feature_would_repeat_is_refused(repo: Path) -> None:
    write(repo, stats(1, 2))
    store = store_with(repo, [DRIVER, driver_view(), computed])
    asked = rows(1, bonus=pa.array([1]), total=pa.array([1]))
    with pytest.raises(EntityRowsError, match=r"'computed:total'.*full_feature_names"):
        store.get_historical_features(asked, ["computed:total"])
    answer = store.get_historical_features(asked, ["computed:total"], full_feature_names=True).to_arrow()
    assert answer.column("computed__total").to_pylist() == [11]
