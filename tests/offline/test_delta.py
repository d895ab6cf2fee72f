"""Delta tables: the files of the newest version and no others, partitions from the log, refusals by name."""

import base64
import importlib.abc
import json
import struct
import sys
from datetime import UTC, date, datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from feast import FeatureStore
from feast.data_format import DeltaFormat
from feast.types import Float64, Int64

from store.errors import DefinitionError, SourceColumnMissing, SourceUnreadable
from store.offline.landing import land_rows
from store.offline.source_columns import scan_of
from store.offline.sources import open_source
from tests.offline.feature_stores import DRIVER, config_for, driver_view, instants, store_with
from tests.offline.reading import needed, opened, rows_of, source_at

HOUR = 3_600_000_000
TABLE = "data/stats"


def rows(hour: int, *trips: int, **columns: Any) -> pa.Table:
    count = len(trips)
    plain = {"driver_id": pa.array([1] * count), "event_timestamp": instants(*[hour * HOUR] * count)}
    return pa.table(plain | {"trips": pa.array(trips, pa.int64())} | columns)


def store_of(repo: Path, **fields: Any) -> FeatureStore:
    return store_with(repo, [DRIVER, driver_view(TABLE, file_format=DeltaFormat(), **fields)])


def answers(store: FeatureStore, *features: str, hour: int = 100) -> dict[str, Any]:
    given = pa.table({"driver_id": [1], "event_timestamp": instants(hour * HOUR)})
    names = features or ("trips",)
    job = store.get_historical_features(given, [f"driver_stats:{name}" for name in names])
    [row] = job.to_arrow().select(list(names)).to_pylist()
    return dict(row)


def read(repo: Path, *features: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rows_of(opened(repo, file_format=DeltaFormat()), needed(*features)).to_pylist()
    return found


def test_the_newest_version_is_read_without_files_that_were_removed(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1, 10))
    store = store_of(repo)
    assert answers(store) == {"trips": 10}
    write_deltalake(repo / TABLE, rows(2, 20), mode="append")
    assert answers(store) == {"trips": 20}
    DeltaTable(repo / TABLE).delete("trips = 20")
    assert answers(store) == {"trips": 10}
    write_deltalake(repo / TABLE, rows(3, 30), mode="overwrite")
    assert [row["trips"] for row in read(repo, "trips")] == [30]
    assert len(list((repo / TABLE).glob("*.parquet"))) > 2


def test_rows_of_equal_times_go_to_the_last_commit_whatever_its_files_are_called(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1, 0))
    store = store_of(repo)
    for number in range(1, 6):
        write_deltalake(repo / TABLE, rows(1, number), mode="append")
        # A log counts in milliseconds; commits of one millisecond go by path.
        log = repo / TABLE / f"_delta_log/{number:020}.json"
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "add" in action:
                action["add"]["modificationTime"] += number * 1_000
        log.write_text("\n".join(map(json.dumps, actions)))
    assert [row["trips"] for row in read(repo, "trips")] == list(range(6))
    assert answers(store) == {"trips": 5}


def test_partition_columns_come_from_the_log_in_the_types_of_the_table(repo: Path) -> None:
    partitions: dict[str, Any] = {
        "day": pa.array([date(2024, 1, 1), None, date(2024, 1, 3)]), "place": pa.array(["a b:c", "é/%", None]),
        "level": pa.array([1, None, -3], pa.int32()), "is_new": pa.array([True, False, None]),
        "moment": pa.array([datetime(2024, 1, 1, 5, 0, 0, 1, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    }  # fmt: skip
    table = rows(1, 1, 2, 3, **partitions)
    write_deltalake(repo / TABLE, table, partition_by=list(partitions))
    found = read(repo, "trips", *partitions)
    plain = table.select(["trips", *partitions]).to_pylist()
    assert sorted(({n: v for n, v in row.items() if n != "e"} for row in found), key=lambda row: row["trips"]) == plain
    view_features = {"trips": Int64, "level": Int64}
    assert answers(store_of(repo, features=view_features), "trips", "level")["level"] in {1, None, -3}


def test_a_partition_can_be_the_join_key(repo: Path) -> None:
    table = rows(1, 7, 8).set_column(0, "driver_id", pa.array([1, 2]))
    write_deltalake(repo / TABLE, table, partition_by=["driver_id"])
    assert answers(store_of(repo)) == {"trips": 7}


def test_files_written_before_a_column_was_added_have_null_there(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1, 10))
    write_deltalake(repo / TABLE, rows(2, 20, rating=pa.array([1.5])), mode="append", schema_mode="merge")
    store = store_of(repo, features={"trips": Int64, "rating": Float64})
    assert answers(store, "trips", "rating") == {"trips": 20, "rating": 1.5}
    assert answers(store, "trips", "rating", hour=1) == {"trips": 10, "rating": None}
    with pytest.raises(SourceColumnMissing, match="'nothing'"):
        read(repo, "nothing")


def test_an_empty_table_answers_nulls_of_the_right_types(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1).slice(0, 0))
    assert open_source(config_for(repo), source_at(TABLE, file_format=DeltaFormat())).files == ()
    assert answers(store_of(repo)) == {"trips": None}
    with pytest.raises(SourceColumnMissing, match="'nothing'"):
        read(repo, "nothing")


def test_pushed_rows_land_beside_the_table_and_stand_last(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1, 10))
    store = store_of(repo)
    land_rows(store.config, store.get_feature_view("driver_stats").batch_source, rows(1, 11))
    assert answers(store) == {"trips": 11}
    assert len(list((repo / f"{TABLE}.landed").glob("*.parquet"))) == 1
    assert DeltaTable(repo / TABLE).version() == 0


def test_files_outside_the_bounds_are_left_out(repo: Path) -> None:
    for hour in (1, 2, 3):
        write_deltalake(repo / TABLE, rows(hour, hour), mode="append")
    source = opened(repo, file_format=DeltaFormat())
    scan = scan_of(source, needed("trips")).within(2 * HOUR, 2 * HOUR)
    assert len(scan.paths) == 1
    assert rows_of(source, needed("trips"), scan).column("trips").to_pylist() == [2]


def test_no_table_and_a_lost_file_are_refused_by_name(repo: Path) -> None:
    with pytest.raises(SourceUnreadable, match=r"no readable Delta table at '.*data/stats'"):
        opened(repo, file_format=DeltaFormat())
    write_deltalake(repo / TABLE, rows(1, 10))
    [lost] = (repo / TABLE).glob("*.parquet")
    lost.unlink()
    with pytest.raises(SourceUnreadable, match=lost.name):
        opened(repo, file_format=DeltaFormat())


class WithoutDeltalake(importlib.abc.MetaPathFinder):
    """Finds what is not installed: nothing, with the error that Python gives then."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "deltalake":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def test_without_the_package_the_extra_is_named(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "deltalake"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutDeltalake(), *sys.meta_path])
    with pytest.raises(DefinitionError, match=r"'stats' is a Delta table.*install larder\[delta\]"):
        opened(repo, file_format=DeltaFormat())


def changed(repo: Path, protocol: dict[str, Any], configuration: dict[str, str], vector: dict[str, Any] | None) -> None:
    """Writes a table, and changes its log to what other writers write."""
    write_deltalake(repo / TABLE, rows(1, 10, 11))
    log = repo / TABLE / "_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        action.update({"protocol": protocol} if "protocol" in action else {})
        if "metaData" in action:
            action["metaData"]["configuration"] |= configuration
        if "add" in action and vector is not None:
            action["add"]["deletionVector"] = vector
    log.write_text("\n".join(map(json.dumps, actions)))


def protocol_with(*features: str) -> dict[str, Any]:
    return {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": [*features], "writerFeatures": [*features]}


def deletion_vector(deleted: int) -> dict[str, Any]:
    """Returns a deletion vector of one row within the log itself.

    Source: the Delta protocol, "Deletion Vector Format": magic, a count of bitmaps, key and portable roaring bitmap
    each; in base85 of the Z85 alphabet.
    """
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, deleted)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = content + bytes(-len(content) % 4)
    python = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = base64.b85encode(padded).translate(bytes.maketrans(python, z85)).decode()
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(content), "cardinality": 1}


def test_a_table_that_allows_deletion_vectors_and_has_none_is_read(repo: Path) -> None:
    changed(repo, protocol_with("deletionVectors"), {}, None)
    assert [row["trips"] for row in read(repo, "trips")] == [10, 11]


def test_a_table_with_a_deletion_vector_is_refused(repo: Path) -> None:
    changed(repo, protocol_with("deletionVectors"), {}, deletion_vector(0))
    with pytest.raises(DefinitionError, match=r"data/stats' has deletion vectors.*REORG TABLE"):
        read(repo, "trips")


def test_mapped_columns_are_refused(repo: Path) -> None:
    changed(repo, {"minReaderVersion": 2, "minWriterVersion": 5}, {"delta.columnMapping.mode": "name"}, None)
    with pytest.raises((DefinitionError, SourceUnreadable), match=r"data/stats'.*columnMapping"):
        read(repo, "trips")


def test_a_feature_that_nobody_knows_is_refused_by_name(repo: Path) -> None:
    changed(repo, protocol_with("rowsInVerse"), {}, None)
    with pytest.raises((DefinitionError, SourceUnreadable), match=r"data/stats'.*rowsInVerse"):
        read(repo, "trips")


def test_a_broken_log_is_refused(repo: Path) -> None:
    write_deltalake(repo / TABLE, rows(1, 10))
    (repo / TABLE / "_delta_log/00000000000000000000.json").write_text("{")
    with pytest.raises(SourceUnreadable, match=r"'stats'.*data/stats"):
        read(repo, "trips")
