"""Where our answers differ from those of Feast's own DuckDB store: each difference with both answers, and why.

ARCHITECTURE.md lists them. A test here fails when Feast changes its mind, which is then the time to look again.
"""

import itertools
import random
from collections.abc import Mapping
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore as FeastsDuckDBOfflineStore
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.types import Array, Float64, Int64, String, UnixTimestamp
from feast.value_type import ValueType
from ibis.common.exceptions import IbisInputError, IbisTypeError

from store.errors import EntityRowsError, WrongType
from store.offline import DuckDBOfflineStore
from tests.feast.both_stores import IBIS_WARNING, BothStores, both_stores, write_parquet

pytestmark = pytest.mark.filterwarnings(IBIS_WARNING)
ENTITIES = {name: Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in ("city", "shop")}


def times(*micros: int | None, unit: str = "us", zone: str | None = "UTC") -> pa.Array:
    return pa.array(micros, pa.int64()).cast(pa.timestamp("us", zone)).cast(pa.timestamp(unit, zone))


def nanoseconds(*nanos: int) -> pa.Array:
    return pa.array(nanos, pa.int64()).cast(pa.timestamp("ns", "UTC"))


def asked(*micros: int | None) -> "pd.Series[Any]":
    return times(*micros).to_pandas()


def view_over(
    path: Path | str,
    features: Mapping[str, Any] | None = None,
    *,
    keys: tuple[str, ...] = ("city",),
    ttl: timedelta | None = None,
    event: str = "event",
    created: str = "",
    mapping: dict[str, str] | None = None,
) -> FeatureView:
    return FeatureView(
        name="v",
        entities=[ENTITIES[key] for key in keys],
        ttl=ttl,
        schema=[
            *(Field(name=key, dtype=Int64) for key in keys),
            *(Field(name=name, dtype=dtype) for name, dtype in (features or {"number": Int64}).items()),
        ],
        source=FileSource(
            name="source",
            path=str(path),
            timestamp_field=event,
            created_timestamp_column=created,
            field_mapping=mapping,
        ),
    )


def stores_over(
    repo: Path, columns: dict[str, Any], features: Mapping[str, Any] | None = None, **view: Any
) -> BothStores:
    path = write_parquet(repo / "data" / "source.parquet", columns)
    return both_stores(repo, [*ENTITIES.values(), view_over(path, features, **view)])


def numbers(answers: tuple[pa.Table, ...]) -> tuple[list[Any], ...]:
    return tuple(answer.column("number").to_pylist() for answer in answers)


def newest(plug_in: type[OfflineStore], store: FeatureStore) -> list[Any]:
    """Returns what a materialization would write: `number` of the newest row of each city, sorted."""
    source = store.get_feature_view("v").batch_source
    interval = datetime(1970, 1, 1, tzinfo=UTC), datetime(1971, 1, 1, tzinfo=UTC)
    job = plug_in.pull_latest_from_table_or_query(store.config, source, ["city"], ["number"], "event", None, *interval)
    return sorted(job.to_arrow().column("number").to_pylist())


class TestTime:
    """Feast's store counts in microseconds, ours in the finest unit of either side (design 3.1)."""

    def test_feast_lets_a_row_from_within_the_same_microsecond_leak_into_the_past(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1, 1], "event": nanoseconds(1_000, 2_001), "number": [1, 2]})
        ours, feasts = numbers(stores.answers(pd.DataFrame({"city": [1], "event_timestamp": asked(2)}), ["v:number"]))
        assert (ours, feasts) == ([1], [2])

    def test_feast_takes_two_created_times_within_a_microsecond_for_equal(self, repo: Path) -> None:
        # The first row was created later, so it answers; to Feast both are alike, and either may come.
        columns = {"city": [1, 1], "event": times(1, 1), "created": nanoseconds(2_002, 2_001), "number": [1, 2]}
        stores = stores_over(repo, columns, created="created")
        ours, feasts = numbers(stores.answers(pd.DataFrame({"city": [1], "event_timestamp": asked(5)}), ["v:number"]))
        assert ours == [1]
        assert feasts in ([1], [2])

    @pytest.mark.filterwarnings("ignore:Discarding nonzero nanoseconds:UserWarning")  # Feast's own, before it refuses
    def test_feast_refuses_entity_rows_with_nanoseconds(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1, 1], "event": nanoseconds(1_000, 2_001), "number": [1, 2]})
        rows = pd.DataFrame({"city": [1, 1], "event_timestamp": nanoseconds(2_000, 2_001).to_pandas()})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1, 2],)
        with pytest.raises(pa.ArrowInvalid, match="would lose data"):
            stores.ask(stores.feasts, rows, ["v:number"])

    def test_feast_cannot_materialize_from_zoned_nanoseconds(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1, 1], "event": nanoseconds(2_001, 2_002), "number": [1, 2]})
        assert newest(DuckDBOfflineStore, stores.ours) == [2]
        with pytest.raises(duckdb.ConversionException, match="TIMESTAMPTZ_NS"):
            newest(FeastsDuckDBOfflineStore, stores.feasts)

    def test_feast_answers_times_in_microseconds_and_we_in_the_unit_of_the_entity_rows(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        rows = pd.DataFrame({"city": [1], "event_timestamp": times(2_000, unit="ms").to_pandas()})
        ours, feasts = stores.answers(rows, ["v:number"])
        assert ours.schema.field("event_timestamp").type == pa.timestamp("ms", "UTC")
        assert feasts.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
        assert ours.column("event_timestamp").cast(pa.int64()).to_pylist() == [2]
        assert feasts.column("event_timestamp").cast(pa.int64()).to_pylist() == [2_000]

    def test_feast_cannot_express_a_ttl_of_days_and_hours(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(0), "number": [1]}, ttl=timedelta(hours=36))
        hour = 3_600_000_000
        rows = pd.DataFrame({"city": [1, 1], "event_timestamp": asked(36 * hour, 36 * hour + 1)})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1, None],)
        with pytest.raises(ValueError, match="mixed units"):
            stores.ask(stores.feasts, rows, ["v:number"])

    def test_feast_takes_a_mixture_of_times_with_and_without_a_zone_and_we_refuse_it(self, repo: Path) -> None:
        # One of the two was meant otherwise in most frames that look so (issue 3, "bad input").
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        mixture = pd.Series([datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)], dtype=object)  # noqa: DTZ001
        rows = pd.DataFrame({"city": [1, 1], "event_timestamp": mixture})
        assert numbers((stores.ask(stores.feasts, rows, ["v:number"]),)) == ([1, 1],)
        with pytest.raises(EntityRowsError, match="mixes times with and without a zone"):
            stores.ask(stores.ours, rows, ["v:number"])


class TestChoice:
    """Which row answers, where Feast leaves it open; and which order the answers have."""

    def test_feast_takes_any_of_the_rows_that_tie_and_we_the_last_of_the_source(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1] * 3, "event": times(1, 1, 1), "number": [1, 2, 3]})
        ours, feasts = numbers(stores.answers(pd.DataFrame({"city": [1], "event_timestamp": asked(5)}), ["v:number"]))
        assert ours == [3]
        assert len(feasts) == 1
        assert feasts[0] in {1, 2, 3}

    def test_feast_returns_entity_rows_in_any_order_and_we_in_theirs(self, repo: Path) -> None:
        # DuckDB turns the join of so many rows around, which loses the order; of a handful it does not.
        chance = random.Random(0)
        keys = [chance.randrange(250) for _ in range(500)]
        stores = stores_over(repo, {"city": keys, "event": times(*range(500)), "number": list(range(500))})
        rows = pd.DataFrame({"city": [chance.randrange(250) for _ in range(50)], "row": range(50)})
        rows["event_timestamp"] = asked(*[500] * 50)
        ours, feasts = stores.answers(rows, ["v:number"])
        assert ours.column("row").to_pylist() == list(range(50)) != feasts.column("row").to_pylist()
        assert feasts.sort_by("row").equals(ours)

    def test_feast_joins_a_partly_renamed_composite_key_by_the_renamed_part_alone(self, repo: Path) -> None:
        path = write_parquet(
            repo / "source.parquet", {"city": [1, 1], "shop": [1, 2], "event": times(1, 2), "number": [1, 2]}
        )
        view = view_over(path, keys=("city", "shop"))
        service = FeatureService(name="asked", features=[view.with_join_key_map({"city": "origin"})])
        stores = both_stores(repo, [*ENTITIES.values(), view, service])
        rows = pd.DataFrame({"origin": [1], "shop": [1], "event_timestamp": asked(3)})
        # Feast's answer is that of shop 2.
        assert numbers(stores.answers(rows, service)) == ([1], [2])

    def test_feast_reads_a_file_column_that_hides_behind_a_mapped_name(self, repo: Path) -> None:
        columns = {"city": [1], "event": times(1), "amount": [1], "number": [2]}
        stores = stores_over(repo, columns, mapping={"amount": "number"})
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        # The declaration says that `number` is the file's `amount`.
        assert numbers(stores.answers(rows, ["v:number"])) == ([1], [2])


class TestKeys:
    def test_feast_compares_integers_with_floats_as_floats(self, repo: Path) -> None:
        # pandas has floats where integers have a null among them; from 2**53 on a float is several integers.
        key = 2**53
        stores = stores_over(repo, {"city": [key + 1], "event": times(1), "number": [1]})
        rows = pd.DataFrame({"city": [float(key), None], "event_timestamp": asked(5, 5)})
        assert numbers(stores.answers(rows, ["v:number"])) == ([None, None], [1, None])

    def test_feast_finds_nothing_for_a_fraction_and_we_refuse_it_as_a_key(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1, 2], "event": times(1, 1), "number": [1, 2]})
        rows = pd.DataFrame({"city": [1.5], "event_timestamp": asked(5)})
        assert numbers((stores.ask(stores.feasts, rows, ["v:number"]),)) == ([None],)
        with pytest.raises(WrongType, match="values that are no integers"):
            stores.ask(stores.ours, rows, ["v:number"])

    def test_both_refuse_text_for_an_integer_key_and_we_say_which_column(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        rows = pd.DataFrame({"city": ["1"], "event_timestamp": asked(5)})
        with pytest.raises(IbisTypeError, match="not comparable"):
            stores.ask(stores.feasts, rows, ["v:number"])
        with pytest.raises(WrongType, match="entity column 'city' has type string, the source has int64"):
            stores.ask(stores.ours, rows, ["v:number"])

    def test_feast_materializes_one_row_for_all_keys_with_a_null_and_we_none(self, repo: Path) -> None:
        columns = {"city": pa.array([None, None, 1], pa.int64()), "event": times(1, 2, 3), "number": [1, 2, 3]}
        stores = stores_over(repo, columns)
        # No lookup can ask for a null, so such a row would lie online unread.
        assert newest(DuckDBOfflineStore, stores.ours) == [3]
        assert newest(FeastsDuckDBOfflineStore, stores.feasts) == [2, 3]


class TestNames:
    """Names that Feast's store uses inside its query, and that a feature may as well have."""

    @pytest.mark.parametrize("name", ["rn", "x_y", "entity_row_id"])
    def test_feast_fails_on_a_feature_called_like_one_of_its_own_columns(self, repo: Path, name: str) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), name: [7]}, {name: Int64})
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        assert stores.ask(stores.ours, rows, [f"v:{name}"]).column(name).to_pylist() == [7]
        with pytest.raises((IbisTypeError, IbisInputError), match=name):
            stores.ask(stores.feasts, rows, [f"v:{name}"])

    def test_feast_answers_its_own_expiry_time_for_a_feature_of_that_name(self, repo: Path) -> None:
        name = "event_expire_timestamp"
        columns = {"city": [1], "event": times(1), name: [7]}
        stores = stores_over(repo, columns, {name: Int64}, ttl=timedelta(days=1))
        ours, feasts = stores.answers(pd.DataFrame({"city": [1], "event_timestamp": asked(5)}), [f"v:{name}"])
        assert ours.column(name).to_pylist() == [7]
        assert feasts.column(name).cast(pa.int64()).to_pylist() == [86_400_000_001]

    def test_feast_loses_a_timestamp_column_whose_name_ends_like_its_own(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "at_y": times(1), "number": [1]}, event="at_y")
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1],)
        with pytest.raises(IbisTypeError, match="at_y"):
            stores.ask(stores.feasts, rows, ["v:number"])

    def test_feast_fails_on_entity_columns_that_differ_only_in_case(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        rows = pd.DataFrame({"city": [1], "City": [5], "event_timestamp": asked(5)})
        assert stores.ask(stores.ours, rows, ["v:number"]).select(["City", "number"]).to_pylist() == [
            {"City": 5, "number": 1}
        ]
        with pytest.raises(KeyError, match="exists 2 times"):
            stores.ask(stores.feasts, rows, ["v:number"])

    def test_both_refuse_a_feature_called_like_an_entity_column_and_we_say_the_remedy(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        rows = pd.DataFrame({"city": [1], "number": [7], "event_timestamp": asked(5)})
        with pytest.raises(IbisInputError, match="Duplicate column name"):
            stores.ask(stores.feasts, rows, ["v:number"])
        with pytest.raises(EntityRowsError, match="full_feature_names=True"):
            stores.ask(stores.ours, rows, ["v:number"])
        both = stores.answers(rows, ["v:number"], full_feature_names=True)
        assert [answer.column("v__number").to_pylist() for answer in both] == [[1], [1]]

    def test_feast_knows_a_mapped_timestamp_by_its_new_name_only(self, repo: Path) -> None:
        columns = {"city": [1], "at": times(1), "number": [1]}
        stores = stores_over(repo, columns, event="at", mapping={"at": "event"})
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1],)
        with pytest.raises(IbisTypeError, match="at"):
            stores.ask(stores.feasts, rows, ["v:number"])


class TestTypes:
    """Feast's store answers the file's type; ours the declared one where that only widens (design 3.2, 4)."""

    @pytest.mark.parametrize(
        ("column", "declared", "ours_type"),
        [
            (pa.array([1], pa.int32()), Int64, pa.int64()),
            (pa.array([1.5], pa.float32()), Float64, pa.float64()),
            (times(7, zone=None), UnixTimestamp, pa.timestamp("us", "UTC")),
            (pa.array(["a"], pa.large_string()), String, pa.string()),
        ],
        ids=["integer", "float", "timestamp", "text"],
    )
    def test_a_feature_has_its_declared_type(
        self, repo: Path, column: pa.Array, declared: Any, ours_type: pa.DataType
    ) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": column}, {"number": declared})
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        ours, feasts = (answer.column("number") for answer in stores.answers(rows, ["v:number"]))
        assert ours.type == ours_type
        # DuckDB has one kind of text.
        assert feasts.type == (pa.string() if pa.types.is_large_string(column.type) else column.type)
        assert ours.cast(feasts.type).equals(feasts)

    def test_lists_come_alike(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [[1, None]]}, {"number": Array(Int64)})
        rows = pd.DataFrame({"city": [1, 2], "event_timestamp": asked(5, 5)})
        assert numbers(stores.answers(rows, ["v:number"])) == ([[1, None], None], [[1, None], None])


class TestSources:
    def test_feast_cannot_read_a_folder_unless_its_format_is_named(self, repo: Path) -> None:
        columns = {"city": [1], "event": times(1), "number": [1]}
        write_parquet(repo / "folder" / "1.parquet", columns)
        stores = both_stores(repo, [*ENTITIES.values(), view_over(repo / "folder")])
        rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1],)
        with pytest.raises(AttributeError):
            stores.ask(stores.feasts, rows, ["v:number"])

    def test_both_read_a_glob(self, repo: Path) -> None:
        for number in (1, 2):
            path = repo / "folder" / f"{number}.parquet"
            write_parquet(path, {"city": [1], "event": times(number), "number": [number]})
        stores = both_stores(repo, [*ENTITIES.values(), view_over(repo / "folder" / "*.parquet")])
        rows = pd.DataFrame({"city": [1, 1], "event_timestamp": asked(1, 5)})
        ours, feasts = stores.answers(rows, ["v:number"])
        assert ours.select(["event_timestamp", "number"]).equals(
            feasts.sort_by("event_timestamp").select(["event_timestamp", "number"])
        )

    def test_feast_takes_relative_paths_from_where_the_caller_stands_and_we_from_the_repo(
        self, repo: Path, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        for folder, number in ((repo, 1), (elsewhere, 2)):
            write_parquet(folder / "source.parquet", {"city": [1], "event": times(1), "number": [number]})
        with chdir(elsewhere):
            stores = both_stores(repo, [*ENTITIES.values(), view_over("source.parquet")])
            rows = pd.DataFrame({"city": [1], "event_timestamp": asked(5)})
            assert numbers(stores.answers(rows, ["v:number"])) == ([1], [2])

    def test_feast_rewrites_the_source_for_a_push_and_we_land_a_file_beside_it(self, repo: Path) -> None:
        path = repo / "data" / "source.parquet"
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        before = path.read_bytes()
        pushed = pa.table({"city": [1], "event": times(2), "number": [2]})
        view = stores.ours.get_feature_view("v")
        DuckDBOfflineStore.offline_write_batch(stores.ours.config, view, pushed, None)
        assert path.read_bytes() == before
        rows = pd.DataFrame({"city": [1, 1], "event_timestamp": asked(1, 5)})
        assert numbers((stores.ask(stores.ours, rows, ["v:number"]),)) == ([1, 2],)
        FeastsDuckDBOfflineStore.offline_write_batch(stores.feasts.config, view, pushed, None)
        assert pq.read_table(path).column("number").to_pylist() == [2, 1]


class TestEntityRows:
    def test_feast_takes_no_arrow_table(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        rows = pa.table({"city": [1], "event_timestamp": times(5)})
        job = stores.ours.get_historical_features(entity_df=rows, features=["v:number"])
        assert job.to_arrow().column("number").to_pylist() == [1]
        with pytest.raises(AttributeError):
            stores.feasts.get_historical_features(entity_df=rows, features=["v:number"])

    def test_feast_takes_no_query_for_entity_rows(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        query = "SELECT 1 AS city, TIMESTAMPTZ '1970-01-02 00:00:00+00' AS event_timestamp"
        job = stores.ours.get_historical_features(entity_df=query, features=["v:number"])
        assert job.to_arrow().column("number").to_pylist() == [1]
        with pytest.raises(AttributeError):
            stores.feasts.get_historical_features(entity_df=query, features=["v:number"])

    def test_feast_needs_entity_rows_and_we_take_a_range_of_times_for_them(self, repo: Path) -> None:
        stores = stores_over(repo, {"city": [1, 1, 2], "event": times(1, 2, 10**9), "number": [1, 2, 3]})
        question = {
            "features": ["v:number"],
            "start_date": datetime(1970, 1, 1, tzinfo=UTC),
            "end_date": datetime(1970, 1, 1, 0, 1, tzinfo=UTC),
        }
        answer = stores.ours.get_historical_features(**question).to_arrow()
        assert sorted(answer.column("number").to_pylist()) == [1, 2]
        with pytest.raises(TypeError, match="start_date"):
            stores.feasts.get_historical_features(**question)

    @pytest.mark.parametrize("rows_at", [(), (None,)], ids=["no rows", "no time"])
    def test_both_answer_rows_without_a_time_alike(self, repo: Path, rows_at: tuple[None, ...]) -> None:
        stores = stores_over(repo, {"city": [1], "event": times(1), "number": [1]})
        keys = np.ones(len(rows_at), dtype="int64")
        answers = stores.answers(pd.DataFrame({"city": keys, "event_timestamp": asked(*rows_at)}), ["v:number"])
        assert numbers(answers) == ([None] * len(rows_at),) * 2
        assert answers[0].schema.equals(answers[1].schema)

    def test_both_answer_the_first_and_the_last_year_alike(self, repo: Path) -> None:
        ends = -62_135_596_800_000_000, 253_402_300_799_000_000
        stores = stores_over(repo, {"city": [1, 2], "event": times(*ends), "number": [1, 2]}, ttl=timedelta(days=1))
        pairs = list(itertools.product((1, 2), ends))
        rows = pd.DataFrame({"city": [key for key, _ in pairs], "event_timestamp": asked(*(at for _, at in pairs))})
        ours, feasts = stores.answers(rows, ["v:number"])
        assert ours.column("number").to_pylist() == [1, None, None, 2]
        assert feasts.sort_by([("city", "ascending"), ("event_timestamp", "ascending")]).equals(ours)
