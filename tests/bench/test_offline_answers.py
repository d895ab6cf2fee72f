"""The benchmark of training sets at its smallest: every contender of every figure gives the oracle's answer."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.offline.answers import AnswerDigest, digest_of
from bench.offline.contenders import prepared
from bench.offline.dataset import INSTANT, entity_rows, history
from bench.offline.figures import Entry, Sizes, all_figures
from bench.offline.runner import Settings, make_task
from bench.offline.shapes import CREATED, EVENT, KEY, ROW_ID, TTL_DAYS, feature_names
from tests.oracles.point_in_time import EntityRow, SourceRow, answers

SCALE = 5_000
TTL_NS = TTL_DAYS * 86_400 * 10**9


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def expected(data: Path) -> dict[tuple[object, ...], AnswerDigest]:
    """The oracle's answers by question, so that each is worked out once."""
    return {}


def distinct_entries() -> Iterator[pytest.ParameterSet]:
    """Yields what the figures ask for, each once, at the smallest size."""
    seen = set()
    for figure in all_figures(Sizes(SCALE), has_feast_deep=True):
        for entry in figure.entries:
            case = (entry.contender, entry.question, entry.memory_limit, entry.writes_parquet)
            if case not in seen:
                seen.add(case)
                yield pytest.param(entry, id=f"{figure.name}-{entry.label}".replace(" ", "_"))


@pytest.mark.parametrize("entry", list(distinct_entries()))
def test_contender_answers_as_the_oracle_does(
    entry: Entry, data: Path, expected: dict[tuple[object, ...], AnswerDigest], tmp_path: Path
) -> None:
    if entry.question not in expected:
        expected[entry.question] = digest_of(oracle_answer(entry, data), keeps_order=True)
    contender = prepared(make_task(entry, Settings(data, threads=2, rounds=1), tmp_path))
    digest = digest_of(contender.run(), keeps_order=contender.keeps_order)
    assert digest.difference(expected[entry.question]) is None


def test_answers_hold_both_values_and_nulls(data: Path) -> None:
    """An answer of nulls alone would let every contender agree."""
    sizes = Sizes(SCALE)
    for shape in (sizes.shallow(), sizes.deep()):
        answer = oracle_answer(Entry("", "", shape, sizes.rows(1_000_000)), data)
        share = answer["v0_f0"].null_count / answer.num_rows
        assert 0 < share < 1


def test_cutoff_changes_answers(data: Path) -> None:
    shape, rows = Sizes(SCALE).deep(), 200
    cut = oracle_answer(Entry("", "", shape, rows, is_cut_by_created=True), data)
    whole = oracle_answer(Entry("", "", shape, rows), data)
    assert digest_of(cut, keeps_order=True).difference(digest_of(whole, keeps_order=True))


def oracle_answer(entry: Entry, data: Path) -> pa.Table:
    asked = pq.read_table(entity_rows(data, entry.shape, entry.entity_rows))
    wanted = [
        EntityRow((key,), time) for key, time in zip(asked[KEY].to_pylist(), nanoseconds(asked[EVENT]), strict=True)
    ]
    for view, file in enumerate(history(data, entry.shape)):
        names = feature_names(view)
        table = pq.read_table(file)
        values = zip(*(table[name].to_pylist() for name in names), strict=True)
        keys, events, created = table[KEY].to_pylist(), nanoseconds(table[EVENT]), nanoseconds(table[CREATED])
        # The oracle looks at every row for every entity row; rows of other keys cannot answer.
        by_key: dict[int, list[SourceRow]] = {}
        for key, event, made, value in zip(keys, events, created, values, strict=True):
            by_key.setdefault(key, []).append(SourceRow((key,), event, made, value))
        found = [
            answers([row], by_key.get(row.key[0], []), TTL_NS, entry.is_cut_by_created)[0] or (None,) * len(names)
            for row in wanted
        ]
        for place, name in enumerate(names):
            asked = asked.append_column(name, pa.array([value[place] for value in found], pa.float64()))
    assert asked[ROW_ID].to_pylist() == list(range(entry.entity_rows))
    return asked


def nanoseconds(column: pa.ChunkedArray) -> list[int]:
    return [micros * 1000 for micros in column.cast(INSTANT).cast(pa.int64()).to_pylist()]
