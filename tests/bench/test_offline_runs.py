"""How the benchmark of training sets compares, measures and reports."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from bench.offline.answers import COLUMNS, UnexpectedAnswer, digest_of
from bench.offline.figures import Entry, Figure, Growth, Peak, Ratio, Sizes
from bench.offline.measurements import Measurement
from bench.offline.report import figure_text
from bench.offline.runner import ContenderFailed, Process, Settings, make_task, measure
from bench.offline.shapes import EVENT, KEY, ROW_ID

SIZES = Sizes(5_000)


def answer(**changed: pa.Array) -> pa.Table:
    columns: dict[str, pa.Array] = {name: pa.array([0.5, None, 2.0]) for name in COLUMNS}
    columns[ROW_ID] = pa.array([0, 1, 2])
    columns[KEY] = pa.array([7, 8, 9])
    columns[EVENT] = pa.array([1_000, 2_000, 3_000], pa.timestamp("us", "UTC"))
    return pa.table(columns | changed)


# --- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same",
    [
        pytest.param(answer(v0_f0=pa.array([0.5, float("nan"), 2.0])), id="nan for null"),
        pytest.param(answer(v0_f0=pa.array([0.5, None, 2.0], pa.float32())), id="narrower number"),
        pytest.param(answer(user_id=pa.array([7, 8, 9], pa.int32())), id="narrower integer"),
        pytest.param(answer(event_timestamp=answer()[EVENT].cast(pa.timestamp("ns", "UTC"))), id="finer time"),
        pytest.param(answer().select(COLUMNS[::-1]), id="other order of columns"),
        pytest.param(pa.concat_tables([answer().slice(0, 1), answer().slice(1)]), id="other chunks"),
    ],
)
def test_same_values_have_the_same_digest(same: pa.Table) -> None:
    assert digest_of(same, keeps_order=True) == digest_of(answer(), keeps_order=True)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (answer(v1_f3=pa.array([0.5, 0.0, 2.0])), "1 of 33 columns differ, first 'v1_f3'"),
        (answer(v1_f3=pa.array([0.5, None, 2.0000000001])), "1 of 33 columns differ, first 'v1_f3'"),
        (answer().slice(0, 2), "2 rows instead of 3"),
        (answer().take([1, 0, 2]), "33 of 33 columns differ, first 'row_id'"),
    ],
)
def test_other_values_rows_or_order_are_told_apart(other: pa.Table, difference: str) -> None:
    assert digest_of(other, keeps_order=True).difference(digest_of(answer(), keeps_order=True)) == difference


def test_answer_without_order_is_sorted_before_it_is_compared() -> None:
    shuffled = digest_of(answer().take([2, 0, 1]), keeps_order=False)
    assert shuffled == digest_of(answer(), keeps_order=True)


def test_answer_with_other_columns_is_refused() -> None:
    with pytest.raises(UnexpectedAnswer, match="extra"):
        digest_of(answer().append_column("extra", pa.array([1, 2, 3])), keeps_order=True)
    with pytest.raises(UnexpectedAnswer, match="'v0_f0' is string"):
        digest_of(answer(v0_f0=pa.array(["a", "b", "c"])), keeps_order=True)


# --- targets -----------------------------------------------------------------------------------


def measured(**walls: float) -> dict[str, Measurement]:
    return {label: Measurement(label, wall_s=[wall], cpu_s=[wall], peak_bytes=1_000) for label, wall in walls.items()}


@pytest.mark.parametrize(("at_most", "is_met"), [(0.51, True), (0.5, True), (0.49, False)])
def test_ratio_is_met_up_to_its_bound(at_most: float, is_met: bool) -> None:
    (verdict,) = Ratio("a", "b", at_most).verdicts(measured(a=1.0, b=2.0))
    assert verdict.is_met == is_met


@pytest.mark.parametrize(("at_most", "is_met"), [(1_000, True), (999, False)])
def test_peak_is_met_up_to_its_bound(at_most: int, is_met: bool) -> None:
    (verdict,) = Peak("a", at_most).verdicts(measured(a=1.0))
    assert verdict.is_met == is_met


def test_growth_is_judged_from_each_size_to_the_next() -> None:
    growth = Growth("rows", ((100, "a"), (200, "b"), (400, "c")))
    first, second = growth.verdicts(measured(a=1.0, b=2.0, c=4.5))
    assert first.is_met
    assert not second.is_met
    assert "exponent 1.17" in second.text


def test_target_on_a_contender_that_does_not_take_part_says_nothing() -> None:
    assert not Ratio("a", "b", 1).verdicts(measured(a=1.0))
    assert not Peak("b").verdicts(measured(a=1.0))


# --- runs --------------------------------------------------------------------------------------


def plain_figure() -> Figure:
    shape = SIZES.shallow()
    entries = (Entry("sql", "sql", shape, 200), Entry("plain", "plain", shape, 200))
    return Figure("two", "two contenders", entries, (Ratio("sql", "plain", 1.0),))


def test_contenders_take_turns_after_their_answers_agree(tmp_path: Path) -> None:
    said: list[str] = []
    found = measure(plain_figure(), Settings(tmp_path, threads=2, rounds=3), said.append)
    assert [len(one.wall_s) for one in found] == [3, 3]
    assert found[0].digest == found[1].digest
    assert all(one.failure is None and one.peak_bytes > 0 for one in found)
    assert said == [
        "two: sql answers",
        "two: plain answers",
        "two: round 1 of 3",
        "two: round 2 of 3",
        "two: round 3 of 3",
    ]
    assert not list(tmp_path.glob("scratch-*"))


def test_contender_that_answers_otherwise_is_named_and_not_timed(tmp_path: Path) -> None:
    figure = plain_figure()
    # ASOF JOIN knows no cutoff: asked for one, it answers what was not known yet.
    entries = tuple(replace(entry, is_cut_by_created=True) for entry in figure.entries)
    figure = replace(figure, entries=entries)
    found = measure(figure, Settings(tmp_path, threads=2, rounds=1), lambda _: None)
    assert found[0].failure is None
    assert found[1].failure
    assert found[1].failure.startswith("answers otherwise than sql: ")
    assert "columns differ" in found[1].failure
    text = figure_text(figure, found)
    assert "- plain FAILED: answers otherwise than sql" in text
    assert "NOT MET" not in text


def test_contender_that_cannot_answer_is_reported_with_its_own_words(tmp_path: Path) -> None:
    task = make_task(plain_figure().entries[1], Settings(tmp_path, threads=2, rounds=1), tmp_path / "scratch")
    with Process(replace(task, history=(str(tmp_path / "nowhere.parquet"),))) as process:
        process.prepare()
        with pytest.raises(ContenderFailed, match=r"IOException: .*nowhere\.parquet"):
            process.run()


def test_command_prints_figures_and_appends_json_lines(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.offline", "--scale", "5000", "--rounds", "1", "--only", "few-shallow"]
    command += ["--contenders", "larder,sql"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| Larder " in done.stdout
    assert "- Larder takes" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "results" / "offline.jsonl").read_text().splitlines()]
    assert [line["contender"] for line in lines] == ["larder", "sql"]
    assert len({line["digest"] for line in lines}) == 1
    assert all(line["n"] == 1 and line["versions"] and line["machine"]["cores"] for line in lines)


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--contenders", "larder,spark"]])
def test_unknown_names_are_refused(options: list[str], tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.offline", *options]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "there are" in " ".join(done.stderr.split())


def test_run_that_is_told_to_end_leaves_no_scratch_files(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.offline", "--scale", "5000", "--rounds", "1000000", "--contenders", "sql"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    with subprocess.Popen(command, cwd=project_root, env=environment, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr
        # The first line comes when the first contender is about to answer.
        assert "answers" in run.stderr.readline()
        assert list(tmp_path.glob("scratch-*"))
        run.terminate()
        run.stderr.read()
        assert run.wait() == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("scratch-*"))


@pytest.mark.long
def test_every_figure_runs_with_all_contenders(tmp_path: Path, project_root: Path) -> None:
    command = [sys.executable, "-m", "bench.offline", "--quick", "--with-feast-deep"]
    environment = os.environ | {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, cwd=project_root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
