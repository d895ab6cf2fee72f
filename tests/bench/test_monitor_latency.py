"""The benchmark of what monitoring costs runs, compares answers, and reckons ratios turn by turn."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench.monitor.latency import AGAIN, OFF, ON, Turns, line


def turns(*p50s: int) -> Turns:
    made = Turns()
    for p50 in p50s:
        made.add([p50] * 99, 0.5)
    return made


def test_ratios_are_of_turns_beside_each_other() -> None:
    # The machine is half as fast in the second round, for everybody.
    told = line("1 key", {OFF: turns(100, 200, 100), AGAIN: turns(100, 200, 110), ON: turns(103, 206, 105)})
    assert (told["p50_ratio"], told["p50_ratio_of_two_alike"]) == (1.03, 1.0)
    assert told["p99_ratio"] == told["p50_ratio"]
    assert told["on"] == {"n": 297, "p50_us": 105.0, "p99_us": 206.0, "max_us": 206, "per_second": 198}


@pytest.mark.long
def test_the_benchmark_runs(project_root: Path) -> None:
    options = ["--keys", "200", "--rounds", "1", "--seconds", "0.3", "--cases", "1 key"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.monitor.latency", *options],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = msgspec.json.decode(done.stdout)
    assert told["case"] == "1 key"
    assert min(told["off"]["n"], told["on"]["n"]) > 10
    assert told["p50_ratio"] > 0
