"""Runs the benchmark: answers compared, then all entries take turns, each on an empty Redis of its own."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from bench.feature_repos import PROJECTS
from bench.materialize import answers, packed, repos
from bench.materialize.figures import PAYLOAD_BYTES, TITLES, Entry, Measurement
from bench.materialize.process import materializer
from bench.offline import dataset
from bench.offline.shapes import Shape
from bench.online.figures import Memory
from bench.online.servers import PROJECT, private_redis

ROWS_PER_KEY = 10


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run measures."""

    data: Path
    contenders: tuple[str, ...] = tuple(TITLES)
    keys: int = 1_000_000
    feast_keys: tuple[int, ...] = (100_000,)
    rounds: int = 3
    redis_binary: Path | None = None

    @property
    def entries(self) -> list[Entry]:
        """Returns who takes part, Larder first."""
        own = [Entry(name, self.keys) for name in ("larder", "plain", "scripted") if name in self.contenders]
        return own + [Entry("feast", keys) for keys in self.feast_keys if "feast" in self.contenders]


@dataclass(slots=True)
class Stage:
    """Everything that is ready to be measured."""

    settings: Settings
    folder: Path
    port: int
    client: redis.Redis
    files: dict[str, tuple[Path, int]] = field(default_factory=dict)
    """Packed commands and the number of their replies, by contender."""
    row_counts: dict[int, int] = field(default_factory=dict)

    def sources(self, keys: int) -> tuple[Path, ...]:
        """Returns the files of so many keys, one a view."""
        return dataset.history(self.settings.data, Shape("shallow", keys * ROWS_PER_KEY, keys))

    def repo(self, whose: str, keys: int) -> Path:
        """Returns the repo of Larder or of Feast over so many keys; nothing is materialized, as far as it knows."""
        folder = self.folder / f"{whose}-{keys}"
        if not folder.exists():
            repos.make_repo(folder, whose, f"127.0.0.1:{self.port}", self.sources(keys)[0].parent)
        repos.forget_runs(folder)
        return folder

    def row_count(self, keys: int) -> int:
        """Returns how many rows a materialization of so many keys writes: a few keys have none in a view."""
        if keys not in self.row_counts:
            self.row_counts[keys] = answers.count_keys(self.sources(keys))
        return self.row_counts[keys]

    def emptied(self) -> int:
        """Empties Redis, and returns how many bytes it uses then."""
        self.client.flushall()
        return self.used_bytes()

    def used_bytes(self) -> int:
        """Returns how many bytes Redis uses."""
        info: Any = self.client.info("memory")
        return int(info["used_memory"])


@contextlib.contextmanager
def prepared(settings: Settings) -> Iterator[Stage]:
    """Starts a Redis in a scratch folder beside the data, since the system's temporary folder may be memory."""
    settings.data.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=settings.data, prefix="scratch-")))
        port, client = stack.enter_context(private_redis(folder / "redis", settings.redis_binary))
        yield Stage(settings, folder, port, client)


def compare_answers(stage: Stage, say: Callable[[str], None]) -> tuple[Memory, str]:
    """Compares what lookups answer after each materialization, and packs what Larder wrote for the baselines.

    Returns:
        What a key takes in Redis, Larder and Feast having written the same rows, and a digest of Larder's answer.

    Raises:
        AnswersDiffer: with the place.
    """
    settings = stage.settings
    small = max(settings.feast_keys, default=settings.keys)
    keys, per_key = answers.sample(small), {}
    expected = answers.in_files(stage.sources(small), keys)
    for whose in ("larder", "feast"):
        if whose in settings.contenders or whose == "larder":
            say(f"{TITLES[whose]}, {small:,} keys: answers")
            before = stage.emptied()
            repo = stage.repo(whose, small)
            _materialize(repo)
            per_key[whose] = (stage.used_bytes() - before) / small
            answers.compare(answers.looked_up(repo, keys), expected, (TITLES[whose], "the files"), keys)
    say(f"{TITLES['larder']}, {settings.keys:,} keys: answers")
    stage.emptied()
    repo, keys = stage.repo("larder", settings.keys), answers.sample(settings.keys)
    _materialize(repo)
    ours = answers.looked_up(repo, keys)
    answers.compare(ours, answers.in_files(stage.sources(settings.keys), keys), (TITLES["larder"], "the files"), keys)
    _pack(stage, say)
    info: Any = stage.client.info()
    versions = info["mem_allocator"], info["redis_version"]
    return Memory(per_key["larder"], per_key.get("feast"), PAYLOAD_BYTES, *versions), answers.digest_of(ours)


def _pack(stage: Stage, say: Callable[[str], None]) -> None:
    """Packs what Larder has just written."""
    packers = {"plain": packed.pack_plain, "scripted": packed.pack_scripted}
    wanted = [name for name in packers if name in stage.settings.contenders]
    if not wanted:
        return
    say("packing what Larder wrote")
    rows = packed.rows_by_field(stage.client, PROJECTS["larder"])
    for name in wanted:
        file = stage.folder / f"{name}.resp"
        stage.files[name] = file, packers[name](rows, file)


def measure(stage: Stage, say: Callable[[str], None]) -> dict[Entry, Measurement]:
    """Returns all measurements; in each round every entry has one turn."""
    entries = stage.settings.entries
    found = {entry: Measurement(entry) for entry in entries}
    for turn in range(stage.settings.rounds):
        start = turn % len(entries)
        for entry in entries[start:] + entries[:start]:
            say(f"round {turn + 1} of {stage.settings.rounds}: {entry.label}")
            _take_turn(stage, found[entry])
    return found


def _take_turn(stage: Stage, measurement: Measurement) -> None:
    entry = measurement.entry
    stage.emptied()
    is_packed = entry.contender in stage.files
    repo = None if is_packed else stage.repo(entry.contender, entry.keys)
    before = _redis_cpu_s(stage.client)
    if repo is None:
        file, replies = stage.files[entry.contender]
        told = _push(stage.port, file, replies)
    else:
        told = _materialize(repo)
    measurement.redis_cpu_s.append(_redis_cpu_s(stage.client) - before)
    measurement.seconds.append(told["seconds"])
    measurement.cpu_s.append(told["cpu_s"])
    measurement.peak_bytes = max(measurement.peak_bytes, told["peak_bytes"])
    measurement.rows = stage.row_count(entry.keys)


def _materialize(repo: Path) -> dict[str, Any]:
    with materializer(repo) as process:
        return process.run()


def _push(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.materialize.packed", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pushing packed commands failed:\n{done.stderr[-3000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _redis_cpu_s(client: redis.Redis) -> float:
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])
