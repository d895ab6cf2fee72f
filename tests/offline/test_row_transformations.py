"""A view's function over rows: what it is handed, what it may give, and that it makes no difference how rows come."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import BatchFeatureView, Entity, Field, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, String, UnixTimestamp
from feast.value_type import ValueType
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import DefinitionError, TransformationError
from store.offline.handed_rows import Misfit, fitted
from store.offline.row_transformations import RowTransformation, names_in, rows_or_the_row, transformation_of
from store.transformations_from_feast import registered

pytestmark = [
    # Feast says this wherever such a view is made; nobody can act on it.
    pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning"),
]

USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
AT = datetime(2026, 3, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", "UTC")


def view_of(function: Any, mode: str = "pandas", features: dict[str, Any] | None = None, **more: Any) -> Any:
    kind = StreamFeatureView if "aggregations" in more else BatchFeatureView
    source = FileSource(name="rows", path="rows.parquet", timestamp_field="at", field_mapping={"amount_": "amount"})
    arguments = {
        "name": "view",
        "entities": [USER],
        "ttl": timedelta(0),
        "schema": [
            Field(name="user_id", dtype=Int64),
            *(Field(name=name, dtype=kind) for name, kind in (features or {"amount": Float64}).items()),
        ],
        "source": PushSource(name="push", batch_source=source) if kind is StreamFeatureView else source,
        "udf": function,
        "udf_string": "",
        "mode": mode,
    }
    return kind(**(arguments | more))


def transformation(function: Any, mode: str = "pandas", features: dict[str, Any] | None = None, **more: Any) -> Any:
    """Returns the transformation of a view as it comes back from the registry."""
    found = transformation_of(registered(view_of(function, mode, features, **more)))
    assert found is not None
    return found


def rows(amounts: list[float | None], **columns: Any) -> pa.Table:
    count = len(amounts)
    return pa.table(
        {
            "user_id": pa.array(range(count), pa.int64()),
            "at": pa.array([AT] * count, INSTANT),
            "amount": pa.array(amounts, pa.float64()),
            **columns,
        }
    )


# --- what is handed over ------------------------------------------------------------------------

HANDED: list[tuple[pa.DataType, Any, str, type]] = [
    (pa.int8(), 1, "Int8", int),
    (pa.int16(), 1, "Int16", int),
    (pa.int32(), 1, "Int32", int),
    (pa.int64(), 2**53 + 1, "Int64", int),
    (pa.uint8(), 1, "UInt8", int),
    (pa.uint16(), 1, "UInt16", int),
    (pa.uint32(), 1, "UInt32", int),
    (pa.uint64(), 2**63, "UInt64", int),
    (pa.bool_(), True, "boolean", bool),
    (pa.float16(), np.float16(0.5), "float32", float),
    (pa.float32(), 0.5, "float32", float),
    (pa.float64(), 0.5, "float64", float),
    (pa.timestamp("s"), AT.replace(tzinfo=None), "datetime64[us]", datetime),
    (pa.timestamp("ms", "UTC"), AT, "datetime64[us, UTC]", datetime),
    (pa.timestamp("us", "UTC"), datetime(9999, 1, 1, tzinfo=UTC), "datetime64[us, UTC]", datetime),
    (pa.timestamp("us", "Europe/Paris"), AT, "datetime64[us, Europe/Paris]", datetime),
    (pa.timestamp("ns", "UTC"), AT, "datetime64[ns, UTC]", pd.Timestamp),
    (pa.date32(), date(1, 1, 1), "object", date),
    (pa.date64(), date(2026, 1, 1), "object", date),
    (pa.decimal128(10, 2), Decimal("1.25"), "object", Decimal),
    (pa.string(), "a", "object", str),
    (pa.large_string(), "a", "object", str),
    (pa.dictionary(pa.int32(), pa.string()), "a", "object", str),
    (pa.binary(), b"a", "object", bytes),
    (pa.binary(1), b"a", "object", bytes),
    (pa.list_(pa.int64()), [2**53 + 1, None], "object", list),
    (pa.struct([("a", pa.int64())]), {"a": 1}, "object", dict),
]


@pytest.mark.parametrize(("kind", "value", "dtype", "python"), HANDED, ids=lambda value: str(value)[:40])
def test_a_column_is_handed_in_one_type_whatever_its_values(
    kind: pa.DataType, value: Any, dtype: str, python: type
) -> None:
    seen: list[Any] = []
    handed = transformation(lambda frame: frame)

    def look(given: Any) -> Any:
        seen.append(given["x"])
        return given

    for mode in ("pandas", "python"):
        looking = changed(handed, look, mode)
        for values in ([value], [value, None], [None, None], [value] * 3):
            looking.rows(rows([1.0] * len(values), x=pa.array(values, kind)))
    framed, listed = seen[:4], seen[4:]
    assert {str(series.dtype) for series in framed} == {dtype}
    assert all(type(column[0]) is python for column in (listed[0], listed[1], listed[3]))
    assert listed[2] == [None, None]
    # As a value, nothing is lost on the way: a null is a null, and an integer none of its neighbours.
    assert bool(pd.isna(framed[1].iloc[1]))
    if kind != pa.date64():
        assert framed[1].iloc[0] == listed[1][0]


def changed(found: RowTransformation, function: Callable[[Any], Any], mode: str) -> RowTransformation:
    fields = {name: getattr(found, name) for name in RowTransformation.__dataclass_fields__}
    return RowTransformation(**(fields | {"function": function, "mode": mode}))


def test_uuids_are_handed_as_text() -> None:
    seen: list[Any] = []
    known = UUID("12345678-1234-5678-1234-567812345678")
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([known.bytes, None], pa.binary(16)))
    changed(transformation(lambda frame: frame), lambda frame: seen.append(frame["x"]) or frame, "pandas").rows(
        rows([1.0, 2.0], x=column)
    )
    assert seen[0].tolist() == [str(known), None]


def test_a_frame_may_be_changed_in_place() -> None:
    def double(frame: pd.DataFrame) -> pd.DataFrame:
        frame["amount"] *= 2
        frame.loc[frame["amount"] > 4, "amount"] = 0.0
        return frame

    given_rows = rows([1.0, 2.0, 3.0])
    assert transformation(double).rows(given_rows).column("amount").to_pylist() == [2.0, 4.0, 0.0]
    assert given_rows.column("amount").to_pylist() == [1.0, 2.0, 3.0]


# --- how rows come makes no difference ----------------------------------------------------------


def banded(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[(frame["amount"] >= 0) | frame["label"].notna()].reset_index(drop=True)
    frame["scaled"] = frame["amount"] / 3 + frame["units"].astype("Float64").fillna(0.5)
    frame["units"] = frame["units"] * 2
    frame["label"] = frame["label"].str.strip().str.lower()
    return frame


def banded_in_lists(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = {name: [] for name in [*columns, "scaled"]}
    for values in zip(*columns.values(), strict=True):
        row = dict(zip(columns, values, strict=True))
        if not ((row["amount"] is not None and row["amount"] >= 0) or row["label"] is not None):
            continue
        units, amount = row["units"], row["amount"]
        row["scaled"] = None if amount is None else amount / 3 + (0.5 if units is None else units)
        row["units"] = None if units is None else units * 2
        row["label"] = row["label"] and row["label"].strip().lower()
        for name, value in row.items():
            out[name].append(value)
    return out


BANDED = {"amount": Float64, "scaled": Float64, "units": Int64, "label": String}
ROWS = st.lists(
    st.tuples(
        st.none() | st.floats(-1e6, 1e6),
        st.none() | st.integers(-(2**61), 2**61),
        st.none() | st.text("aB ", max_size=3),
    ),
    max_size=12,
)


def of_three(drawn: list[tuple[Any, Any, Any]]) -> pa.Table:
    amounts, units, labels = map(list, zip(*drawn, strict=True)) if drawn else ([], [], [])
    return rows(amounts, units=pa.array(units, pa.int64()), label=pa.array(labels, pa.string()))


def expected_of(table: pa.Table) -> list[dict[str, Any]]:
    """Returns what comes out, by the plain function row after row."""
    found = [banded_in_lists({name: [value] for name, value in row.items()}) for row in table.to_pylist()]
    wanted = ["user_id", "at", *BANDED]
    return [{name: row[name][0] for name in wanted} for row in found if row["user_id"]]


@pytest.mark.parametrize(
    ("function", "mode", "examples"),
    [
        (banded, "pandas", 25),
        (banded_in_lists, "python", 100),
        pytest.param(banded, "pandas", 1_000, marks=pytest.mark.long),
        pytest.param(banded_in_lists, "python", 2_000, marks=pytest.mark.long),
    ],
)
def test_rows_in_any_parts_give_the_same(function: Any, mode: str, examples: int) -> None:
    found = transformation(function, mode, BANDED)

    @settings(max_examples=examples)
    @given(ROWS, st.lists(st.integers(0, 12), max_size=4))
    def check(drawn: list[Any], cuts: list[int]) -> None:
        table = of_three(drawn)
        bounds = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
        parts = [table.slice(low, high - low) for low, high in pairwise(bounds)]
        together = pa.concat_tables([found.rows(part) for part in parts])
        whole = found.placed_rows(table)
        expected = expected_of(table)
        for got in (together.to_pylist(), whole.table.to_pylist()):
            assert [_close(row) for row in got] == [_close(row) for row in expected]
        # Every row that came out is named by its place among those that went in.
        assert whole.places.tolist() == [row["user_id"] for row in expected]
        found.require_row_wise(table)

    check()


def _close(row: dict[str, Any]) -> dict[str, Any]:
    return {name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for name, value in row.items()}


def test_places_are_found_by_any_way_to_leave_rows_out() -> None:
    table = rows([float(number % 3) for number in range(50)])
    kept = [number for number in range(50) if number % 3]

    def by_index(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["amount"] > 0]

    def by_new_index(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["amount"] > 0].reset_index(drop=True)

    def by_new_frame(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame[frame["amount"] > 0]
        return type(frame)({name: frame[name].tolist() for name in frame})

    for function in (by_index, by_new_index, by_new_frame):
        assert transformation(function).placed_rows(table).places.tolist() == kept


def test_rows_in_another_order_keep_their_places_or_are_refused() -> None:
    table = rows([3.0, 1.0, 2.0])
    placed = transformation(lambda frame: frame.sort_values("amount")).placed_rows(table)
    assert placed.places.tolist() == [1, 2, 0]
    assert placed.table.column("user_id").to_pylist() == [1, 2, 0]
    with pytest.raises(TransformationError, match="in other company"):
        transformation(lambda frame: frame[frame["amount"] > 1].iloc[::-1]).placed_rows(table)


# --- what does not do ---------------------------------------------------------------------------


def raises(frame: pd.DataFrame) -> pd.DataFrame:
    raise KeyError("price")


def lacks(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="amount")


def lacks_the_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="user_id")


def gives_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(amount="5")


def gives_more(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([frame, frame])


def gives_twice(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([frame, frame], axis=1)


REFUSED: list[tuple[Any, str, str]] = [
    (raises, "pandas", r"view 'view'.*'raises' failed: KeyError: 'price'.*nulls among them"),
    (lacks, "pandas", r"gave no column 'amount' \(it gave \['at', 'user_id'\]\).*features are declared of"),
    (lacks_the_key, "pandas", r"gave no column 'user_id'.*the join keys of each row"),
    (gives_text, "pandas", r"gave for column 'amount' string, expected double; change the function, or declare"),
    (gives_more, "pandas", r"gave 6 rows for 3.*not make new ones"),
    (gives_twice, "pandas", "one of them twice"),
    (lambda frame: frame["amount"], "pandas", "gave Series, expected a DataFrame.*mode 'python'"),
    (lambda frame: None, "pandas", "gave NoneType, expected a DataFrame"),
    (lambda columns: columns.assign(x=1), "python", r"failed: AttributeError.*dict of lists, declare mode 'pandas'"),
    (lambda columns: [1, 2, 3], "python", "gave list, expected a dict of lists"),
    (lambda columns: {"amount": 5}, "python", "gave 5 for 'amount', expected a list"),
    (lambda columns: {"amount": "abc"}, "python", "gave 'abc' for 'amount', expected a list"),
    (lambda columns: {**columns, "amount": [1.0]}, "python", "columns of different lengths"),
    (lambda columns: {"amount": [1.0]}, "python", "gave no column 'user_id'"),
    (lambda columns: {"amount": [1.0, "b", 2.0]}, "python", "gave for column 'amount' values that have no one type"),
]


@pytest.mark.parametrize(("function", "mode", "message"), REFUSED)
def test_a_function_that_does_not_do_is_named_with_the_remedy(function: Any, mode: str, message: str) -> None:
    with pytest.raises(TransformationError, match=message):
        transformation(function, mode).rows(rows([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "function",
    [
        lambda frame: frame.assign(amount=frame["amount"] - frame["amount"].mean()),
        lambda frame: frame.assign(amount=frame["amount"].shift()),
        lambda frame: frame.assign(amount=frame["amount"].cumsum()),
        lambda frame: frame.assign(amount=frame["amount"].rank()),
        lambda frame: frame.head(2),
        lambda frame: frame.assign(amount=__import__("random").random()),
        lambda frame: frame.assign(amount=float(__import__("time").monotonic_ns())),
    ],
)
def test_a_function_that_looks_at_other_rows_is_found_out(function: Any) -> None:
    with pytest.raises(TransformationError, match=r"same rows when they came in other company.*row-wise"):
        transformation(function).require_row_wise(rows([5.0, 1.0, 4.0, 2.0, 3.0, 9.0]))


def test_the_row_that_fails_is_named() -> None:
    def strict(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"amount": [1 / value for value in columns["amount"]]}

    table = rows([float(number) for number in range(-5, 9)])
    with pytest.raises(TransformationError, match=r"push 'p', row 5: .*'strict' failed: ZeroDivisionError"):
        rows_or_the_row("push 'p'", transformation(strict, "python"), table)


def test_keys_of_a_stream_stay_where_they_are() -> None:
    windows: dict[str, Any] = {
        "features": {"sum_amount_3600s": Float64},
        "aggregations": [Aggregation(column="amount", function="sum", time_window=timedelta(hours=1))],
        "timestamp_field": "at",
    }
    table = rows([1.0, 2.0, 3.0])
    kept = transformation(lambda frame: frame[frame["amount"] > 1], **windows)
    assert kept.rows(table).column("user_id").to_pylist() == [1, 2]
    with pytest.raises(TransformationError, match="changed join key 'user_id', which a windowed stream view's"):
        transformation(lambda frame: frame.assign(user_id=frame["user_id"] + 1), **windows).rows(table)
    with pytest.raises(TransformationError, match="would have to compute join key 'user_id'"):
        transformation(lambda frame: frame.assign(user_id=1), **windows).rows(table.drop_columns("user_id"))
    # A plain view's rows are written where the function says that they belong.
    moved = transformation(lambda frame: frame.assign(user_id=frame["user_id"] + 1)).rows(table)
    assert moved.column("user_id").to_pylist() == [1, 2, 3]


# --- types --------------------------------------------------------------------------------------

FITTING: list[tuple[Any, pa.DataType, list[Any]]] = [
    (pd.Series([1.0, np.nan]), pa.int64(), [1, None]),
    ([1.0, None, float("nan")], pa.int64(), [1, None, None]),
    (pd.Series([1, None], dtype="Int64"), pa.float64(), [1.0, None]),
    (pd.Series([0.1]), pa.float32(), [np.float32(0.1)]),
    (pd.Series([np.nan, 1.5]), pa.float64(), [None, 1.5]),
    (pd.Series(["a", None], dtype="string"), pa.string(), ["a", None]),
    (pd.Series(["a", "b", None], dtype="category"), pa.string(), ["a", "b", None]),
    (pd.Series([1, None], dtype="int64[pyarrow]"), pa.int64(), [1, None]),
    (pd.to_datetime(pd.Series(["2026-03-01", None])), INSTANT, [AT, None]),
    (pd.to_datetime(pd.Series(["2026-03-01"])).dt.tz_localize("Europe/Paris"), INSTANT, [AT - timedelta(hours=1)]),
    ([date(2026, 3, 1)], INSTANT, [AT]),
    ([AT, None], INSTANT, [AT, None]),
    ([None, None], pa.list_(pa.int64()), [None, None]),
    (pd.Series([np.nan]), pa.string(), [None]),
    (pd.Series([], dtype=float), INSTANT, []),
    ([np.array([1.0, 2.0]), [3.0]], pa.list_(pa.float64()), [[1.0, 2.0], [3.0]]),
    ([[1, None]], pa.list_(pa.float64()), [[1.0, None]]),
    ([True, None], pa.bool_(), [True, None]),
    ([Decimal("1.5")], pa.decimal128(10, 2), [Decimal("1.50")]),
    (np.array([1, 2]), pa.int32(), [1, 2]),
]


@pytest.mark.parametrize(("values", "kind", "expected"), FITTING)
def test_values_that_fit_are_kept_whole(values: Any, kind: pa.DataType, expected: list[Any]) -> None:
    assert fitted(values, kind).to_pylist() == expected


MISFITS: list[tuple[Any, pa.DataType]] = [
    ([1.5], pa.int64()),
    (pd.Series([1.5, None], dtype=object), pa.int64()),
    ([[1.5]], pa.list_(pa.int64())),
    (["5"], pa.int64()),
    ([5], pa.string()),
    ([True], pa.int64()),
    ([1], pa.bool_()),
    ([5], INSTANT),
    ([5.0], INSTANT),
    (["2026-03-01"], INSTANT),
    ([2**53 + 1], pa.float64()),
    ([2**40], pa.int32()),
    ([2**63], pa.int64()),
    (["a"], pa.binary()),
    ([b"a"], pa.string()),
    ([[1.0]], pa.float64()),
    ([1.0], pa.list_(pa.float64())),
    ([object()], pa.string()),
    ([1, "a"], pa.string()),
    (pd.to_datetime(pd.Series(["2026-03-01T00:00:00.000000001"])), INSTANT),
]


@pytest.mark.parametrize(("values", "kind"), MISFITS)
def test_values_of_another_type_are_refused(values: Any, kind: pa.DataType) -> None:
    with pytest.raises(Misfit):
        fitted(values, kind)


def test_output_types_follow_declarations_and_the_source() -> None:
    features = {
        "amount": Float32, "units": Int32, "label": String, "flag": Bool, "blob": Bytes, "seen": UnixTimestamp,
        "tags": Array(String), "days": Array(UnixTimestamp), "extra": Json,
    }  # fmt: skip
    found = transformation(lambda frame: frame, features=features)
    given_schema = pa.schema([("user_id", pa.int32()), ("at", pa.timestamp("ns")), ("seen", pa.timestamp("ns", "UTC"))])
    output = found.output(found.given(given_schema))
    assert dict(zip(output.names, output.types, strict=True)) == {
        "user_id": pa.int64(),
        "at": pa.timestamp("ns"),
        "amount": pa.float32(),
        "blob": pa.binary(),
        "days": pa.list_(INSTANT),
        "extra": pa.string(),
        "flag": pa.bool_(),
        "label": pa.string(),
        "seen": pa.timestamp("ns", "UTC"),
        "tags": pa.list_(pa.string()),
        "units": pa.int32(),
    }
    assert found.output_in_file(given_schema).names[2] == "amount_"
    maps = transformation(lambda frame: frame, features={"extra": Map})
    with pytest.raises(DefinitionError, match=r"'extra' is declared as MAP.*can only pass on"):
        maps.output(given_schema)


def aggregated(**functions: tuple[str, Any]) -> RowTransformation:
    """Returns the transformation of a view that aggregates column x by functions, each of a declared type."""
    found: RowTransformation = transformation(
        lambda frame: frame,
        features={name: kind for name, (_, kind) in functions.items()},
        aggregations=[
            Aggregation(column="x", function=function, time_window=timedelta(hours=1), name=name)
            for name, (function, _) in functions.items()
        ],
        timestamp_field="at",
    )
    return found


def test_columns_of_windows_have_the_types_that_their_features_say() -> None:
    base = pa.schema([("user_id", pa.int64()), ("at", INSTANT)])
    ints = base.append(pa.field("x", pa.int32()))

    def x_of(found: RowTransformation, schema: pa.Schema) -> pa.DataType:
        return found.output(schema).field("x").type

    assert x_of(aggregated(a=("sum", Float64)), ints) == pa.float64()
    assert x_of(aggregated(a=("sum", Int64)), base) == pa.int64()
    assert x_of(aggregated(a=("max", String)), base) == pa.string()
    assert x_of(aggregated(a=("last_3", Array(Int32)), b=("mean", Float64), c=("min", Int64)), base) == pa.int32()
    assert x_of(aggregated(a=("count", Int64)), ints) == pa.int32()
    assert x_of(aggregated(a=("count", Int64)), base) == pa.string()
    with pytest.raises(DefinitionError, match="column 'x' is aggregated into features of types"):
        aggregated(a=("max", String), b=("min", Int64)).output(base)


def test_what_is_only_counted_is_told_apart_by_value() -> None:
    found = aggregated(a=("count_distinct", Int64))
    values = [1, 1.0, "b", None, True, float("nan"), b"\x01", AT, Decimal("1.5")]
    table = rows([0.0] * len(values))
    out = changed(found, lambda columns: {"x": values}, "python").rows(table)
    assert out.column("x").to_pylist() == ["1", "1", "b", None, "True", None, "01", AT.isoformat(), "1.5"]
    with pytest.raises(TransformationError, match="gave for column 'x' list, such as"):
        changed(found, lambda columns: {"x": [[1]] * len(values)}, "python").rows(table)


def test_truths_that_are_summed_count_as_numbers() -> None:
    found = aggregated(a=("sum", Float64))
    out = changed(found, lambda frame: frame.assign(x=frame["amount"] > 1), "pandas").rows(rows([1.0, 2.0]))
    assert out.column("x").to_pylist() == [0.0, 1.0]


def test_columns_that_a_function_mentions_are_known() -> None:
    def mentions(frame: pd.DataFrame) -> pd.DataFrame:
        def inner(part: pd.DataFrame) -> Any:
            return part["units"] + 1

        return frame[["user_id", "at"]].assign(amount=inner(frame) + frame.label)

    found = transformation(mentions)
    assert names_in(found, ["units", "label", "other", "user_id"]) == ["units", "label", "user_id"]
