"""How the benchmark of profiling compares, measures and reports."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.monitor.profiling import FEAST_TIMES_MIN, SELECT_TIMES_MAX, VARIANTS, Measured, difference, verdicts
from bench.monitor.profiling_contender import Task, larder, select
from bench.monitor.profiling_data import table_file


def test_an_answer_that_differs_is_told() -> None:
    expected = {"a": {"count": 3, "mean": 1.0, "sd": 2.0}}
    assert not difference(expected, {"a": {"count": 3, "mean": 1.0 + 1e-9}})
    assert "mean is 1.1" in difference(expected, {"a": {"mean": 1.1}})
    assert "sd is None" in difference(expected, {"a": {"sd": None}})
    assert "features ['b']" in difference(expected, {"b": {}})


@pytest.mark.parametrize(("ours", "are_met"), [(1.5, (True, True)), (1.51, (False, False))])
def test_targets_are_met_up_to_their_bounds(ours: float, are_met: tuple[bool, bool]) -> None:
    assert (SELECT_TIMES_MAX, FEAST_TIMES_MIN) == (1.5, 3.0)
    measured = {"larder": Measured([ours]), "select": Measured([1.0]), "feast": Measured([4.5])}
    assert tuple(is_met for _, is_met in verdicts(measured)) == are_met


@pytest.mark.parametrize("variant", VARIANTS)
def test_profiles_and_the_select_agree(tmp_path: Path, variant: str) -> None:
    features = list(VARIANTS[variant])
    (tmp_path / "scratch").mkdir()
    task = Task("larder", str(table_file(tmp_path, variant, 2_000)), features, 1, str(tmp_path / "scratch"))
    ours, theirs = larder(task)(), select(task)()
    assert list(ours) == list(theirs) == features
    assert difference(ours, theirs) == ""


@pytest.mark.long
def test_command_prints_figures_and_appends_json_lines(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.monitor", "--scale", "5000", "--rounds", "1", "--only", "profiling:texts"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- Larder takes" in done.stdout
    assert "another answer" not in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "results" / "monitor.jsonl").read_text().splitlines()]
    assert [(line["figure"], line["contender"], line["rows"]) for line in lines] == [
        ("texts", "larder", 2_000),
        ("texts", "select", 2_000),
        ("texts", "feast", 2_000),
    ]
    assert all(line["peak_bytes"] > 0 and len(line["wall_s"]) == 1 for line in lines)
