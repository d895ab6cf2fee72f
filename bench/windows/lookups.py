"""Lookups of 30 plain features with and without 12 windowed ones, over HTTP, in turns."""

import contextlib
import http.client
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.feature_repos import make_repo
from bench.online import repos, servers
from bench.parts import Options
from bench.windows.shop import FEATURES, SOURCE, Events, definitions, difference, events, write_events

if TYPE_CHECKING:
    from store.feature_store import FeatureStore

KEYS, EVENTS_PER_KEY, STREAMED_PER_KEY = 2_000, 400, 40
AT_MOST = 2.0
"""p50 with windows, as a multiple of p50 without: the target, for one key."""

_SERVICES = {"without": "everything", "with": "everything_and_windows"}
_REQUESTS = {1: 1_000, 100: 100}
_SAMPLE = 20
_PUSH_ROWS = 5_000


def run(options: Options) -> bool:
    """Prints and records the figure; returns whether all answers were right."""
    keys = max(20, KEYS // options.scale)
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        port, _ = stack.enter_context(servers.private_redis(path / "redis", None))
        repos.write_sources(path / "sources", keys)
        landed = events(keys * EVENTS_PER_KEY, keys, 1, is_batch=True)
        write_events(path / "sources", landed)
        repo = make_repo(path / "larder", "larder", f"127.0.0.1:{port}", definitions(path / "sources"))
        repos.materialize(repo)
        streamed = push_and_apply(repo, events(keys * STREAMED_PER_KEY, keys, 2))
        server = stack.enter_context(servers.larder(repo))
        ask = _asker(server.port)
        wrong = _wrong(ask, keys, [landed, streamed])
        print(f"## lookups: windows of 1 h, 1 d and 30 d on top of 30 plain features\n\n{wrong or 'answers agree'}\n")
        for count, requests in _REQUESTS.items():
            _record(_measured(ask, keys, count, requests * options.rounds // options.scale), count, options)
    return not wrong


def push_and_apply(repo: Path, found: Events) -> Events:
    """Pushes events online, and has all of them applied before it returns."""
    # Feast takes seconds to import, which the other parts need not wait for.
    from store.feature_store import FeatureStore
    from store.stream.context import StreamContext
    from store.stream.lines import landed_line

    store = FeatureStore(str(repo))
    push_rows(store, found)
    with contextlib.closing(StreamContext(repo, store.config)) as context:
        landed_line(context, "")
    return found


def push_rows(store: "FeatureStore", found: Events) -> None:
    """Pushes events online, as a producer does."""
    import pandas as pd

    for start in range(0, len(found.keys), _PUSH_ROWS):
        part = slice(start, start + _PUSH_ROWS)
        at = pd.to_datetime(found.event_us[part], unit="us", utc=True)
        store.push(
            SOURCE, pd.DataFrame({repos.KEY: found.keys[part], "event_timestamp": at, "value": found.amounts[part]})
        )


def _asker(port: int) -> Callable[[str, list[int]], tuple[Any, float]]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(service: str, keys: list[int]) -> tuple[Any, float]:
        body = json.dumps({"feature_service": service, "entities": {repos.KEY: keys}})
        began = time.perf_counter()
        connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - began
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {content[:500]!r}")
        return content, seconds

    return ask


def _wrong(ask: Callable[[str, list[int]], tuple[Any, float]], keys: int, found: list[Events]) -> str:
    """Returns how the answers to a sample differ from a rescan, "" if they do not."""
    for key in np.random.default_rng(3).integers(0, keys, _SAMPLE).tolist():
        before_us = int(datetime.now(UTC).timestamp() * 1e6)
        answer = json.loads(ask(_SERVICES["with"], [key])[0])
        after_us = int(datetime.now(UTC).timestamp() * 1e6)
        names = answer["metadata"]["feature_names"]
        served = {name: answer["results"][names.index(name)]["values"][0] for name in FEATURES}
        # A hop may have begun between the two.
        told = [difference(found, key, served, instant_us) for instant_us in (before_us, after_us)]
        if all(told):
            return told[0]
    return ""


def _measured(
    ask: Callable[[str, list[int]], tuple[Any, float]], keys: int, count: int, requests: int
) -> dict[str, list[float]]:
    random = np.random.default_rng(count)
    found: dict[str, list[float]] = {name: [] for name in _SERVICES}
    for _ in range(max(requests, 10)):
        chosen = random.choice(keys, min(count, keys), replace=False).tolist()
        for name, service in _SERVICES.items():
            found[name].append(ask(service, chosen)[1])
    return found


def _record(found: dict[str, list[float]], count: int, options: Options) -> None:
    of = {name: (median(seconds) * 1e3, quantiles(seconds, n=100)[98] * 1e3) for name, seconds in found.items()}
    ratio = of["with"][0] / of["without"][0]
    print(f"| {count} keys | n | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, (p50, p99) in of.items():
        print(f"| {name} windows | {len(found[name])} | {p50:.2f} | {p99:.2f} |")
    target = f", at most {AT_MOST}: {'met' if ratio <= AT_MOST else 'NOT MET'}" if count == 1 else ""
    print(f"\n- with windows p50 is {ratio:.2f} times that without{target}\n", flush=True)
    line = {"part": "lookups", "keys": count, "ms": of, "ratio": ratio}
    options.record(line)
