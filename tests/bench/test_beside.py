import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.live import environment


@pytest.mark.long
def test_lookups_are_measured_alone_and_beside_training_sets(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.beside", "--rounds", "1", "--seconds", "3", "--scale", "100"]
    settings = {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(settings))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results" / "beside.jsonl").read_text().splitlines()]
    assert [line["company"] for line in lines] == ["none", "training sets", "counting processes"]
    assert [line["n"] for line in lines] == [600] * 3
    assert [line["retrievals"] > 0 for line in lines] == [False, True, False]
    assert all(0 < line["p50_ms"] <= line["p99_ms"] <= line["p99.9_ms"] <= line["max_ms"] for line in lines)
    assert done.stdout.count("\n| ") == 4
