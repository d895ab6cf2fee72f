"""The benchmark of lookups beside other work: what its targets say, and one short run of all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.beside.figures import Phase, verdicts
from tests.server.live import environment


@pytest.mark.parametrize(("p99_ms", "seconds", "is_met"), [(5.0, 4.0, True), (5.1, 4.1, False)])
def test_targets_are_met_at_their_bound_and_missed_beyond_it(p99_ms: float, seconds: float, is_met: bool) -> None:
    idle = Phase("none", latencies_ms=[5.0 / 6] * 100)
    alone = Phase("retrievals", retrieval_s=[1.0, 2.0, 9.0]), Phase("a materialization", materialization_s=[2.0])
    both = Phase("both", [p99_ms] * 100, retrieval_s=[seconds], materialization_s=[seconds])
    assert [one.is_met for one in verdicts(idle, *alone, both)] == [is_met] * 4


@pytest.mark.long
def test_lookups_are_measured_alone_and_beside_other_work(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.beside", "--rounds", "1", "--seconds", "3", "--scale", "100"]
    settings = {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(settings))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results" / "beside.jsonl").read_text().splitlines()]
    assert [line["company"] for line in lines] == [
        "none",
        "training sets",
        "counting processes",
        "training sets alone",
        "a materialization alone",
        "a materialization and training sets",
    ]
    looked_up = [line for line in lines if line["n"]]
    assert [line["n"] for line in looked_up[:3]] == [600] * 3
    assert len(looked_up) == 4
    assert looked_up[3] is lines[5]
    assert [line["retrievals"] > 0 for line in lines[:4]] == [False, True, False, True]
    assert [line["materializations"] for line in lines] == [0] * 4 + [1, 1]
    assert all(0 < line["p50_ms"] <= line["p99_ms"] <= line["p99.9_ms"] <= line["max_ms"] for line in looked_up)
    assert done.stdout.count("\n| ") == 7
