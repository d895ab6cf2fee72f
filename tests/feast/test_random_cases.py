"""Is it Feast's meaning? Random retrievals, answered by Feast's own DuckDB store and by ours."""

import itertools
import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore as FeastsDuckDBOfflineStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.offline import DuckDBOfflineStore
from tests.feast.both_stores import IBIS_WARNING
from tests.feast.cases import Case, View, cases, entity_frame, instants, stores_of, stores_over, views

pytestmark = pytest.mark.filterwarnings(IBIS_WARNING)
COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONG_EXAMPLES = int(os.environ.get("LARDER_LONG_EXAMPLES", "1000"))
ENDS = st.tuples(*[instants("us").filter(lambda instant: instant is not None)] * 2)
# test_differences.py has the one combination from which Feast's store cannot materialize.
READABLE = views("v").filter(lambda view: view.unit != "ns" or view.zone is None)


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folders for repos, each used once: the stores may keep what they know of a file."""
    folder = tmp_path_factory.mktemp("repos")
    return (folder / str(number) for number in itertools.count())


@settings(max_examples=25, **COMMON)
@given(case=cases())
def test_both_stores_answer_every_entity_row_alike(repos: Any, case: Case) -> None:
    check_alike(next(repos), case)


@pytest.mark.long
@settings(max_examples=LONG_EXAMPLES, **COMMON)
@given(case=cases())
def test_both_stores_answer_every_entity_row_alike_in_full(repos: Any, case: Case) -> None:
    check_alike(next(repos), case)


def check_alike(repo: Path, case: Case) -> None:
    stores, service = stores_of(case, repo)
    options = {"full_feature_names": case.has_full_names, "filter_by_created_timestamp": case.is_cut}
    ours, feasts = stores.answers(entity_frame(case), service, **options)
    assert ours.column_names == feasts.column_names
    assert ours.column("row").to_pylist() == list(range(len(case.entity_rows)))
    # Feast's store promises no order.
    feasts = feasts.sort_by("row")
    for name in set(ours.column_names) - {column(case, view, part) for view in case.views for part in (0, 1)}:
        assert ours.column(name).to_pylist() == feasts.column(name).to_pylist(), name
    for view in case.views:
        check_view(case, view, ours, feasts)


def check_view(case: Case, view: View, ours: pa.Table, feasts: pa.Table) -> None:
    """Checks that both stores chose the same source row, or rows between which Feast's store leaves the choice open."""
    ties = tied(view)
    numbers, feasts_numbers = (table.column(column(case, view, 0)).to_pylist() for table in (ours, feasts))
    for place, (number, feasts_number) in enumerate(zip(numbers, feasts_numbers, strict=True)):
        assert ties.get(number) == ties.get(feasts_number), (view.name, place, number, feasts_number)
        assert number is None or number == max(ties[number]), "of tied rows ours takes the last one of the file"
    for table, chosen in ((ours, numbers), (feasts, feasts_numbers)):
        labels = [None if number is None else f"row {number}" for number in chosen]
        assert table.column(column(case, view, 1)).to_pylist() == labels


@settings(max_examples=20, **COMMON)
@given(view=READABLE, ends=ENDS)
def test_both_stores_materialize_the_same_rows(repos: Any, view: View, ends: tuple[int, int]) -> None:
    check_materialized_alike(next(repos), view, *sorted(ends))


@pytest.mark.long
@settings(max_examples=LONG_EXAMPLES, **COMMON)
@given(view=READABLE, ends=ENDS)
def test_both_stores_materialize_the_same_rows_in_full(repos: Any, view: View, ends: tuple[int, int]) -> None:
    check_materialized_alike(next(repos), view, *sorted(ends))


def check_materialized_alike(repo: Path, view: View, start: int, end: int) -> None:
    """Checks the newest row per key, and all rows, with start <= event time <= end."""
    stores = stores_over(view, repo)
    source = stores.ours.get_feature_view(view.name).batch_source
    names = {"join_key_columns": list(view.keys), "feature_name_columns": [view.number]}
    question = {
        **{role: [view.in_file(name) for name in columns] for role, columns in names.items()},
        "timestamp_field": view.in_file("event"),
        "created_timestamp_column": view.in_file("created") if view.has_created else None,
        "start_date": EPOCH + timedelta(microseconds=start),
        "end_date": EPOCH + timedelta(microseconds=end),
    }
    found = []
    for plug_in, store in ((DuckDBOfflineStore, stores.ours), (FeastsDuckDBOfflineStore, stores.feasts)):
        newest = plug_in.pull_latest_from_table_or_query(store.config, source, **question).to_arrow()
        every = plug_in.pull_all_from_table_or_query(store.config, source, **question).to_arrow()
        found.append([sorted(table.column(view.in_file(view.number)).to_pylist()) for table in (newest, every)])
    (ours_newest, ours_all), (feasts_newest, feasts_all) = found
    assert ours_all == feasts_all
    # test_differences.py has the keys with a null in them.
    whole = {row.number for row in view.rows if None not in row.key}
    ties = tied(view)
    assert sorted(ties[number] for number in ours_newest) == sorted(
        ties[number] for number in feasts_newest if number in whole
    )
    assert all(number == max(ties[number]) for number in ours_newest)


def column(case: Case, view: View, part: int) -> str:
    feature = (view.number, view.label)[part]
    return f"{view.asked_as}__{feature}" if case.has_full_names else feature


def tied(view: View) -> dict[int, list[int]]:
    """Returns for each source row the rows, itself included, that share its key, event time and created time."""
    groups = defaultdict(list)
    for row in view.rows:
        groups[row.key, row.event, row.created].append(row.number)
    return {number: group for group in groups.values() for number in group}
