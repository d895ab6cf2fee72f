"""How the benchmark of windows compares, measures and reports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.windows.training import FIGURES, THREE, Measured, _difference, _verdicts
from bench.windows.training_data import VALUE, files, naive_answers
from tests.oracles.windows import Event, Feature, value


def test_the_rescan_is_what_the_oracle_says(tmp_path: Path) -> None:
    events, entities = files(tmp_path, 2_000, 20, 3)
    table, asked = pq.read_table(events), pq.read_table(entities)
    columns = table.column("user_id"), table.column("event_timestamp").cast("int64"), table.column(VALUE)
    known = [
        Event((key,), at, None, {"x": one})
        for key, at, one in zip(*(column.to_pylist() for column in columns), strict=True)
    ]
    found = naive_answers(events, entities, THREE)
    assert len(found) == 20
    columns = asked.column("row_id"), asked.column("user_id"), asked.column("event_timestamp").cast("int64")
    for row, key, at in zip(*(column.to_pylist() for column in columns), strict=True):
        own = [event for event in known if event.key == (key,)]
        expected = [value(own, at, Feature("x", f, *shape)) for shape in THREE for f in ("sum", "count", "min", "max")]
        assert list(found[row]) == expected


def test_an_answer_that_differs_is_told() -> None:
    expected = {7: (1.0, 2, None)}
    assert not _difference(expected, [[7, [1.0 + 1e-12, 2, None]]])
    assert "row 7" in _difference(expected, [[7, [1.0, 3, None]]])
    assert "row 7" in _difference(expected, [[7, [1.0, 2, 0.0]]])
    assert "0 of 1" in _difference(expected, [])


@pytest.mark.parametrize(("seconds", "is_met"), [(1.0, True), (1.01, False)])
def test_a_target_is_met_up_to_its_bound(seconds: float, is_met: bool) -> None:
    figure = next(figure for figure in FIGURES if figure.name == "keys-10000")
    measured = {"larder": Measured([seconds], [1.0]), "range": Measured([1.0], [1.0])}
    [(_, found)] = _verdicts(figure, measured)
    assert found == is_met


def test_command_prints_figures_and_appends_json_lines(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.windows", "--scale", "5000", "--rounds", "1", "--only"]
    command += ["training:keys-10000"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- Larder takes" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "results" / "windows.jsonl").read_text().splitlines()]
    assert [(line["figure"], line["contender"]) for line in lines] == [
        ("keys-10000", "larder"),
        ("keys-10000", "range"),
    ]
    assert not any(line["wrong"] for line in lines)
    assert not list(tmp_path.glob("scratch-*"))


def test_unknown_parts_are_refused(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.windows", "--only", "nothing:keys-100"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there are" in " ".join(done.stderr.split())


@pytest.mark.long
def test_every_figure_runs(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.windows", "--scale", "500", "--rounds", "1"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"## {figure.name}: " in done.stdout for figure in FIGURES)
    assert "FAILED" not in done.stdout
