"""`python -m bench.monitor.latency`: what monitoring adds to lookups, by the same server with and without it.

With it a server logs every vector of the service that is asked for, looks after the freshness of its views, and is
scraped once in each of its turns, a few times as often as Prometheus does. Without it, it does none of these. Both take
short turns within one round, so that whatever else the machine does falls on both; a second server without says what
the comparison itself is worth: it should give 1.
"""

import base64
import http.client
import json
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from bench.feature_repos import make_repo
from bench.online import repos, servers
from bench.online.answers import compare, digest_of
from bench.online.load import Job
from bench.online.runner import http_request, load

_LOGGED = """
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

everything.logging_config = LoggingConfig(FileLoggingDestination(path="data/served"), sample_rate=1.0)
"""
CASES = {"1 key": (1, 1), "100 keys": (100, 1), "1 key, 16 clients": (1, 16)}
"""Keys of a request, and clients."""

RATIO_MAX = 1.05
"""What monitoring may make of a latency."""

REQUESTS = 512
"""Distinct requests of a case."""

_PATH = "/get-online-features"
_COMPARED = 20
OFF, AGAIN, ON = "off", "again", "on"


@dataclass(slots=True)
class Turns:
    """What one server answered in one case: the percentiles of each turn, and all latencies together."""

    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    latencies_us: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, latencies_us: Sequence[int], seconds: float) -> None:
        """Takes a turn."""
        p50, p99 = np.percentile(latencies_us, [50, 99])
        self.p50_us.append(float(p50))
        self.p99_us.append(float(p99))
        self.latencies_us += latencies_us
        self.seconds += seconds

    def as_json(self) -> dict[str, float]:
        """Returns what all turns give."""
        p50, p99 = np.percentile(self.latencies_us, [50, 99])
        rate = len(self.latencies_us) / self.seconds
        return {
            "n": len(self.latencies_us),
            "p50_us": round(float(p50), 1),
            "p99_us": round(float(p99), 1),
            "max_us": max(self.latencies_us),
            "per_second": round(rate),
        }


def measure_latency(
    keys: int = 20_000, rounds: int = 20, seconds: float = 1.0, cases: Sequence[str] = tuple(CASES)
) -> Iterator[dict[str, object]]:
    """Yields a line for each case: latencies with and without monitoring, and the median of their ratios by turns.

    Raises:
        AnswersDiffer: monitoring changes an answer.
    """
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, ExitStack() as stack:
        port, _ = stack.enter_context(servers.private_redis(Path(folder) / "redis", None))
        repos.write_sources(Path(folder) / "sources", keys)
        plain = repos.definitions(Path(folder) / "sources")
        running: dict[str, servers.Server] = {}
        unwatched = (sys.executable, "-m", "bench.monitor.unwatched")
        for name, definitions in ((OFF, plain), (AGAIN, plain), (ON, plain + _LOGGED)):
            repo = make_repo(Path(folder) / name, "larder", f"127.0.0.1:{port}", definitions)
            if name == OFF:
                repos.materialize(repo)
            command = (servers.LARDER,) if name == ON else unwatched
            running[name] = stack.enter_context(servers.larder(repo, command))
        for case in cases:
            bodies = _bodies(case, keys)
            digest = _compare_answers(running, bodies)
            turns = _take_turns(running, CASES[case][1], bodies, rounds, seconds)
            yield line(case, turns) | {"answer": digest}


def _bodies(case: str, keys: int) -> list[bytes]:
    asked = CASES[case][0]
    random = np.random.default_rng(asked)
    chosen = [random.choice(keys, asked, replace=False).tolist() for _ in range(REQUESTS)]
    return [json.dumps({"feature_service": "everything", "entities": {repos.KEY: each}}).encode() for each in chosen]


def _compare_answers(running: dict[str, servers.Server], bodies: Sequence[bytes]) -> str:
    """Compares some answers of all servers; returns the digest of the first."""
    digest = ""
    for body in bodies[:_COMPARED]:
        answers = {name: servers.post(server.port, _PATH, body) for name, server in running.items()}
        for name in (AGAIN, ON):
            compare(answers[OFF], answers[name], (OFF, name))
        digest = digest or digest_of(answers[OFF])
    return digest


def _take_turns(
    running: dict[str, servers.Server], clients: int, bodies: Sequence[bytes], rounds: int, seconds: float
) -> dict[str, Turns]:
    encoded = tuple(base64.b64encode(http_request(_PATH, body)).decode() for body in bodies)
    found = {name: Turns() for name in running}
    names = list(running)
    for number in range(rounds + 1):
        # Whoever comes first in a round comes last in the next but one: no server always follows the same one.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with _scraped(running[name].port, seconds if name == ON else None):
                latencies_us, took = load(Job(running[name].port, encoded, clients, seconds))
            if number:  # the first round warms up
                found[name].add(latencies_us, took)
    return found


@contextmanager
def _scraped(port: int, seconds: float | None) -> Iterator[None]:
    """Has a server's metrics read again and again with so many seconds between, until the block ends; None: never."""
    if seconds is None:
        yield
        return
    ended = threading.Event()

    def scrape() -> None:
        # The client takes a moment to start: half a turn later it is at work.
        while not ended.wait(seconds / 2):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/metrics")
                connection.getresponse().read()

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        ended.set()
        scraper.join()


def line(case: str, turns: dict[str, Turns]) -> dict[str, object]:
    """Returns what was measured in one case, for one line of JSON."""
    told: dict[str, object] = {"bench": "monitor.latency", "case": case}
    told |= {name: turns[name].as_json() for name in (OFF, ON)}
    for percentile in ("p50", "p99"):
        off, again, on = (getattr(turns[name], f"{percentile}_us") for name in (OFF, AGAIN, ON))
        ratios = [2 * with_it / (one + two) for one, two, with_it in zip(off, again, on, strict=True)]
        told[f"{percentile}_ratio"] = round(median(ratios), 3)
        alike = [two / one for one, two in zip(off, again, strict=True)]
        told[f"{percentile}_ratio_of_two_alike"] = round(median(alike), 3)
    return told | {"asked_ratio_max": RATIO_MAX}


def main(
    keys: Annotated[int, typer.Option(min=200, help="Keys in Redis.")] = 20_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each server in each case.")] = 20,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of one turn.")] = 1.0,
    cases: Annotated[str, typer.Option(help="Which cases, with semicolons between.")] = ";".join(CASES),
) -> None:
    """Compare lookups of a server that is monitored with the same lookups of one that is not."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    for told in measure_latency(keys, rounds, seconds, cases.split(";")):
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    typer.run(main)
