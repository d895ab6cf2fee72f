"""The benchmark of lookups: what it compares, what its targets say, and one short run of all of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.online.answers import AnswersDiffer, compare, digest_of
from bench.online.figures import Case, Measurement, Memory, verdicts
from tests.server.live import environment


def answer(value: float, status: str = "PRESENT") -> bytes:
    results = [{"values": [value], "statuses": [status], "event_timestamps": [None]}]
    return json.dumps({"metadata": {"feature_names": ["a"]}, "results": results}).encode()


def test_same_values_agree_and_others_are_told_with_their_column() -> None:
    compare(answer(1.0), answer(1.0), ("one", "other"))
    assert digest_of(answer(1.0)) == digest_of(answer(1.0)) != digest_of(answer(2.0))
    for other in (answer(2.0), answer(1.0, "NOT_FOUND")):
        with pytest.raises(AnswersDiffer, match="'a'"):
            compare(answer(1.0), other, ("one", "other"))


def measurement(name: str, latency_us: int) -> Measurement:
    one = Measurement(name)
    one.add([latency_us] * 100, 100 * latency_us / 1e6)
    return one


def test_targets_are_met_at_their_bound_and_missed_beyond_it() -> None:
    for latency_us, is_met in ((10_000, True), (9_999, False)):
        found = {"larder": measurement("larder", 1_000), "feast": measurement("feast", latency_us)}
        assert [one.is_met for one in verdicts(Case("1 key", 1, 1), found)] == [is_met, True]
    assert [one.is_met for one in Memory(369, 648, 231, "libc", "6.2").verdicts()] == [True, True]
    assert [one.is_met for one in Memory(370, 648, 231, "libc", "6.2").verdicts()] == [False, False]


@pytest.mark.long
def test_a_short_run_of_all_contenders_agrees_and_is_recorded(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.online", "--quick"]
    settings = {"LARDER_BENCH_DATA": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(settings))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results" / "online.jsonl").read_text().splitlines()]
    assert [line["contender"] for line in lines] == ["larder", "feast", "bare", "redis"] * 3
    assert all(0 < line["p50_us"] <= line["p99_us"] <= line["max_us"] and line["n"] for line in lines)
