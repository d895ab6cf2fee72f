"""The benchmark's files: made once, the same each time, never half made, and without ties."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.offline import dataset
from bench.offline.shapes import CREATED, EVENT, KEY, SPAN_US, START_US, VIEWS, Shape

SHAPE = Shape("tiny", rows=5_000, keys=50)


def test_history_is_made_once(tmp_path: Path) -> None:
    files = dataset.history(tmp_path, SHAPE)
    made = [file.stat().st_mtime_ns for file in files]
    assert dataset.history(tmp_path, SHAPE) == files
    assert [file.stat().st_mtime_ns for file in files] == made
    assert len(files) == VIEWS


def test_history_is_the_same_each_time_and_each_view_differs(tmp_path: Path) -> None:
    here = [pq.read_table(file) for file in dataset.history(tmp_path / "here", SHAPE)]
    there = [pq.read_table(file) for file in dataset.history(tmp_path / "there", SHAPE)]
    assert all(one.equals(other) for one, other in zip(here, there, strict=True))
    assert here[0][EVENT] != here[1][EVENT]


def test_history_of_another_generator_is_made_anew(tmp_path: Path) -> None:
    file = dataset.history(tmp_path, SHAPE)[0]
    whole = file.read_bytes()
    file.write_bytes(b"old")
    (file.parent / "stamp.json").write_text("{}")
    assert dataset.history(tmp_path, SHAPE)[0].read_bytes() == whole


def test_history_left_half_made_is_not_taken_for_whole(tmp_path: Path) -> None:
    making = tmp_path / f"{SHAPE.label}.making"
    making.mkdir()
    (making / "view_0.parquet").write_bytes(b"half")
    assert pq.read_metadata(dataset.history(tmp_path, SHAPE)[0]).num_rows == SHAPE.rows
    assert not making.exists()


def test_history_is_sorted_by_event_time_within_the_year_and_has_no_ties(tmp_path: Path) -> None:
    for file in dataset.history(tmp_path, SHAPE):
        table = pq.read_table(file)
        events = table[EVENT].to_numpy().astype(np.int64)
        assert (np.diff(events) >= 0).all()
        assert events[0] >= START_US
        assert events[-1] < START_US + SPAN_US
        assert (table[CREATED].to_numpy().astype(np.int64) >= events).all()
        pairs = set(zip(table[KEY].to_pylist(), events.tolist(), strict=True))
        assert len(pairs) == SHAPE.rows


def test_fewer_entity_rows_are_the_first_of_more(tmp_path: Path) -> None:
    few = pq.read_table(dataset.entity_rows(tmp_path, SHAPE, 100))
    many = pq.read_table(dataset.entity_rows(tmp_path, SHAPE, 1_000))
    assert many.slice(0, 100).equals(few)
    assert many.num_rows == 1_000


def test_some_entity_rows_have_unknown_keys(tmp_path: Path) -> None:
    keys = pq.read_table(dataset.entity_rows(tmp_path, SHAPE, 10_000))[KEY].to_numpy()
    assert 0 < (keys >= SHAPE.keys).mean() < 0.05
