"""The stream: from log to Redis with one worker beside a bare script, and from a push to the value that is read."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import redis

from bench.feature_repos import make_repo
from bench.online import repos, servers
from bench.parts import Options
from bench.windows.lookups import push_rows
from bench.windows.shop import DAY_US, FEATURES, SOURCE, VIEW, Events, definitions, difference, events, write_events
from store.kernel.keys import entity_key_encoder, stream_tiles_key

KEYS, EVENTS = 10_000, 100_000
AT_LEAST = 0.25
"""Events a second, as a share of the bare script's: the target."""

LATENCY_MS_MAX = 20.0
RATE, ROWS_A_PUSH, LATENCY_SECONDS = 1_000, 10, 10
"""Events a second, in pushes of so many rows, for so long."""

_CALL_EVENTS, _CALLS_AT_ONCE, _SAMPLE = 100, 20, 50
_FIGURES = ("throughput", "latency")


def run(options: Options) -> bool:
    """Prints and records the figures; returns whether all answers were right."""
    chosen = [name for name in _FIGURES if not options.figures or name in options.figures]
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        port, client = stack.enter_context(servers.private_redis(path / "redis", None))
        (path / "sources").mkdir()
        repos.write_sources(path / "sources", 10)
        write_events(path / "sources", events(10, 10, 1))
        repo = make_repo(path / "larder", "larder", f"127.0.0.1:{port}", definitions(path / "sources"))
        wrong = _throughput(repo, client, options) if "throughput" in chosen else ""
        if "latency" in chosen:
            client.flushdb()
            _latency(repo, client, stack, options)
    return not wrong


# --- from log to Redis -----------------------------------------------------------------------------


def _throughput(repo: Path, client: redis.Redis, options: Options) -> str:
    count = options.rows(EVENTS)
    rates: dict[str, list[float]] = {"larder": [], "bare": []}
    wrong = ""
    for turn in range(options.rounds + 1):
        found = events(count, KEYS, turn, longest_us=2 * DAY_US)
        contenders = [("larder", _larder), ("bare", _bare)]
        for name, apply in contenders if turn % 2 else contenders[::-1]:
            client.flushdb()
            seconds, differs = apply(repo, client, found)
            wrong = wrong or differs
            if turn:  # the first is to warm up
                rates[name].append(count / seconds)
    print(f"## stream: {count} events of {KEYS} keys, three windows and four aggregates\n")
    print(f"{wrong or 'answers agree'}\n")
    print("| contender | n | median events/s | min | max |\n|---|---|---|---|---|")
    titles = {"larder": "Larder, one worker, from the log", "bare": "bare script, from memory"}
    for name, each in rates.items():
        print(f"| {titles[name]} | {len(each)} | {median(each):,.0f} | {min(each):,.0f} | {max(each):,.0f} |")
    ratio = median(rates["larder"]) / median(rates["bare"])
    verdict = "met" if ratio >= AT_LEAST else "NOT MET"
    print(f"\n- the worker applies {ratio:.2f} of the bare script's events a second, at least {AT_LEAST}: {verdict}\n")
    options.record({"part": "stream", "figure": "throughput", "rates": rates, "ratio": ratio})
    return wrong


def _larder(repo: Path, client: redis.Redis, found: Events) -> tuple[float, str]:
    """Returns the seconds from a full log to all of it in tiles, and how answers differ from a rescan."""
    del client
    from store.feature_store import FeatureStore
    from store.online.stream_log import draw_line
    from store.stream.context import StreamContext
    from store.stream.lines import wait_for_line

    store = FeatureStore(str(repo))
    push_rows(store, found)
    context = StreamContext(repo, store.config)
    with contextlib.closing(context):
        line = context.session.hold(draw_line(context.log, "", context.clock.now_us()))
        began = time.perf_counter()
        wait_for_line(context, line, 600)
        seconds = time.perf_counter() - began
    for key in np.random.default_rng(5).choice(found.keys, _SAMPLE).tolist():
        before_us = _now_us()
        answer = store.get_online_features([f"{VIEW}:{name}" for name in FEATURES], {repos.KEY: [key]}).to_dict()
        served = {name: answer[name][0] for name in FEATURES}
        told = [difference([found], key, served, instant_us) for instant_us in (before_us, _now_us())]
        if all(told):
            return seconds, told[0]
    return seconds, ""


def _bare(repo: Path, client: redis.Redis, found: Events) -> tuple[float, str]:
    """Returns the seconds that a script takes for the same events, and how its counts differ from theirs."""
    del repo
    script: Any = client.script_load((Path(__file__).parent / "bare.lua").read_text())
    names = [f"bare:{key}" for key in found.keys.tolist()]
    arguments = [
        argument
        for pair in zip(found.event_us.tolist(), map(repr, found.amounts.tolist()), strict=True)
        for argument in pair
    ]
    began = time.perf_counter()
    step = _CALL_EVENTS * _CALLS_AT_ONCE
    for start in range(0, len(names), step):
        with client.pipeline(transaction=False) as pipe:
            for first in range(start, min(start + step, len(names)), _CALL_EVENTS):
                keys = names[first : first + _CALL_EVENTS]
                pipe.evalsha(script, len(keys), *keys, *arguments[2 * first : 2 * (first + len(keys))])
            pipe.execute()
    seconds = time.perf_counter() - began
    for key in np.random.default_rng(5).choice(found.keys, _SAMPLE).tolist():
        tiles: Any = client.hgetall(f"bare:{key}")
        counted = sum(int(value) for name, value in tiles.items() if name.startswith(b"1:") and name.endswith(b"c"))
        if counted != int((found.keys == key).sum()):
            return seconds, f"the bare script counts {counted} events of key {key}"
    return seconds, ""


# --- from a push to the value ------------------------------------------------------------------------


@contextlib.contextmanager
def _ingesting(repo: Path) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "larder"), "ingest", "--repo", str(repo)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def _latency(repo: Path, client: redis.Redis, stack: contextlib.ExitStack, options: Options) -> None:
    server = stack.enter_context(servers.larder(repo))
    stack.enter_context(_ingesting(repo))
    random = np.random.default_rng(9)
    seconds = max(2, LATENCY_SECONDS // options.scale)
    key_of = _tile_keys(repo)
    _push(server.port, random, 0)
    if not _wait(lambda: bool(client.exists(key_of(KEYS))), 60):
        raise RuntimeError("the worker did not apply the first event within a minute")
    seen: list[float] = []
    threads = []
    began = time.perf_counter()
    for number in range(1, seconds * RATE // ROWS_A_PUSH + 1):
        due = began + number * ROWS_A_PUSH / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        thread = threading.Thread(target=_one, args=(server.port, client, key_of(KEYS + number), number, seen))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    lost = len(threads) - len(seen)
    p50, p99 = median(seen) * 1e3, quantiles(seen, n=100)[98] * 1e3
    print(f"## stream: from a push to the value that is read, {RATE} events a second in pushes of {ROWS_A_PUSH}\n")
    print("| n | p50 ms | p99 ms | max ms |\n|---|---|---|---|")
    print(f"| {len(seen)} | {p50:.1f} | {p99:.1f} | {max(seen) * 1e3:.1f} |")
    is_met = p99 < LATENCY_MS_MAX and not lost
    print(f"\n- p99 under {LATENCY_MS_MAX:.0f} ms: {'met' if is_met else 'NOT MET'}\n", flush=True)
    line = {"part": "stream", "figure": "latency", "n": len(seen), "p50_ms": p50, "p99_ms": p99, "lost": lost}
    options.record(line)


def _one(port: int, client: redis.Redis, tiles_key: bytes, number: int, seen: list[float]) -> None:
    """Pushes some events, and tells how long it takes until the tiles that a lookup reads hold the first."""
    began = time.perf_counter()
    _push(port, np.random.default_rng(number), number)
    if _wait(lambda: bool(client.exists(tiles_key)), 10):
        seen.append(time.perf_counter() - began)


def _tile_keys(repo: Path) -> Callable[[int], bytes]:
    """Returns the function from a key to the Redis key of its tiles."""
    from store.definitions_from_feast import view_definition
    from store.feature_store import FeatureStore

    store = FeatureStore(str(repo))
    definition = view_definition(store.project, store.get_stream_feature_view(VIEW))
    encoder = entity_key_encoder(store.project, definition.join_keys)
    return lambda key: stream_tiles_key(encoder.encode([key]) or b"", definition.name, definition.fingerprint)


def _push(port: int, random: np.random.Generator, number: int) -> None:
    """Pushes events, the first of which is of a key that no other push has."""
    keys = [KEYS + number, *random.integers(0, KEYS, ROWS_A_PUSH - 1).tolist()]
    now = datetime.now(UTC).isoformat()
    columns = {
        repos.KEY: keys,
        "event_timestamp": [now] * len(keys),
        "value": random.normal(0, 10, len(keys)).tolist(),
    }
    body = json.dumps({"push_source_name": SOURCE, "df": columns, "to": "online"})
    servers.post(port, "/push", body.encode())


def _wait(is_done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.perf_counter() + seconds
    while not is_done():
        if time.perf_counter() > deadline:
            return False
        time.sleep(0.0005)
    return True


def _now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1e6)
