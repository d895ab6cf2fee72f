"""Runs the benchmark: Redis filled twice, answers compared, then all contenders take turns in each case."""

import base64
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import redis

from bench.feature_repos import PROJECTS, make_repo
from bench.online import repos, servers
from bench.online.answers import compare, digest_of
from bench.online.figures import CASES, TITLES, Case, Measurement, Memory
from bench.online.load import Job
from bench.online.servers import PROJECT, Server
from store.kernel.definitions import Column
from store.kernel.keys import entity_key_encoder, generation_field, row_field, views_key

REQUESTS = 512
"""Distinct requests of a case: enough that no contender answers the same one twice in a row."""

_PATH = "/get-online-features"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run measures."""

    contenders: tuple[str, ...] = tuple(TITLES)
    keys: int = 20_000
    rounds: int = 5
    seconds: float = 2.0
    redis_binary: Path | None = None


@dataclass(slots=True)
class Stage:
    """Everything that is ready to be measured."""

    redis_port: int
    keys: int
    running: dict[str, Server] = field(default_factory=dict)

    def port(self, contender: str) -> int:
        """Returns where a contender listens."""
        return self.redis_port if contender == "redis" else self.running[contender].port


@contextlib.contextmanager
def prepared(settings: Settings, folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Stage, Memory]]:
    """Fills one Redis with the rows of both and starts the servers on it; also says what the rows take there."""
    with ExitStack() as stack:
        port, client = stack.enter_context(servers.private_redis(folder / "redis", settings.redis_binary))
        say("rows")
        repos.write_sources(folder / "sources", settings.keys)
        per_key: dict[str, float] = {}
        made = {}
        for whose in ("feast", "larder"):
            if whose not in settings.contenders and whose != "larder":
                continue
            say(f"{whose}: apply and materialize")
            made[whose] = make_repo(folder / whose, whose, f"127.0.0.1:{port}", repos.definitions(folder / "sources"))
            per_key[whose] = _bytes_per_key(client, made[whose], settings.keys)
        # Measured one after the other in an empty Redis; now both lie in the same one.
        if "feast" in made:
            say("feast: materialize again, beside Larder's rows")
            repos.materialize(made["feast"])
        info: Any = client.info()
        memory = Memory(
            per_key["larder"], per_key.get("feast"), repos.PAYLOAD_BYTES, info["mem_allocator"], info["redis_version"]
        )
        stage = Stage(port, settings.keys)
        stage.running["larder"] = stack.enter_context(servers.larder(made["larder"]))
        if "feast" in made:
            stage.running["feast"] = stack.enter_context(servers.feast(made["feast"]))
        if "bare" in settings.contenders:
            stage.running["bare"] = stack.enter_context(servers.bare(_fixed_answers(stage, folder / "bare")))
        yield stage, memory


def _bytes_per_key(client: redis.Redis, repo: Path, keys: int) -> float:
    client.flushall()
    before: Any = client.info("memory")
    repos.materialize(repo)
    after: Any = client.info("memory")
    return float(after["used_memory"] - before["used_memory"]) / keys


def _fixed_answers(stage: Stage, folder: Path) -> Path:
    """Writes Larder's own answers, for the app that returns the same bytes."""
    folder.mkdir()
    for case in CASES:
        (folder / f"keys-{case.keys}").write_bytes(servers.post(stage.port("larder"), _PATH, bodies(stage, case)[0]))
    return folder


def bodies(stage: Stage, case: Case) -> list[bytes]:
    """Returns the bodies of a case's requests: other keys each time, all of which are there."""
    random = np.random.default_rng(case.keys)
    chosen = [random.choice(stage.keys, case.keys, replace=False).tolist() for _ in range(REQUESTS)]
    return [
        json.dumps({"feature_service": "everything", "entities": {repos.KEY: keys}}).encode() for keys in chosen
    ]  # fmt: skip


def compare_answers(stage: Stage, say: Callable[[str], None]) -> dict[str, str]:
    """Compares the answers of all servers to the same questions; returns the digest of the first answer by case.

    Raises:
        AnswersDiffer: with the place.
    """
    digests = {}
    for case in CASES:
        say(f"{case.name}: answers")
        asked = bodies(stage, case)[:20]
        ours = [servers.post(stage.port("larder"), _PATH, body) for body in asked]
        digests[case.name] = digest_of(ours[0])
        if "feast" in stage.running:
            for body, answer in zip(asked, ours, strict=True):
                theirs = servers.post(stage.port("feast"), _PATH, body)
                compare(answer, theirs, (TITLES["larder"], TITLES["feast"]))
        if "bare" in stage.running:
            same = servers.post(stage.port("bare"), f"/keys-{case.keys}", asked[0])
            compare(ours[0], same, (TITLES["larder"], TITLES["bare"]))
    return digests


def measure(stage: Stage, settings: Settings, say: Callable[[str], None]) -> dict[Case, dict[str, Measurement]]:
    """Returns all measurements by case and contender; in each round every contender has one turn of each case."""
    found = {case: {name: Measurement(name) for name in settings.contenders} for case in CASES}
    jobs = {(case, name): _job(stage, case, name, settings.seconds) for case in CASES for name in settings.contenders}
    for case in CASES:
        for name in settings.contenders:
            say(f"{case.name}: {TITLES[name]} warms up")
            load(replace(jobs[case, name], seconds=min(settings.seconds, 1.0)))
    for turn in range(settings.rounds):
        for case in CASES:
            say(f"round {turn + 1} of {settings.rounds}: {case.name}")
            start = turn % len(settings.contenders)
            for name in settings.contenders[start:] + settings.contenders[:start]:
                latencies_us, seconds = load(jobs[case, name])
                found[case][name].add(latencies_us, seconds)
    for measurements in found.values():
        for name, measurement in measurements.items():
            if name in stage.running:
                measurement.peak_bytes = stage.running[name].peak_bytes()
    return found


def _job(stage: Stage, case: Case, contender: str, seconds: float) -> Job:
    replies = 0
    if contender == "redis":
        requests = [_commands(json.loads(body)["entities"][repos.KEY]) for body in bodies(stage, case)]
        replies = case.keys + 1
    else:
        path = f"/keys-{case.keys}" if contender == "bare" else _PATH
        requests = [http_request(path, body) for body in bodies(stage, case)]
    encoded = tuple(base64.b64encode(request).decode() for request in requests)
    return Job(stage.port(contender), encoded, case.clients, seconds, replies)


def http_request(path: str, body: bytes) -> bytes:
    """Returns a whole request as it is sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def _commands(keys: list[int]) -> bytes:
    """Returns what Larder says to Redis in a lookup: one HMGET a key, and one for the generations."""
    project = PROJECTS["larder"]
    encoder = entity_key_encoder(project, [Column(repos.KEY, "INT64")])
    views = [f"view{number}" for number in range(repos.VIEWS)]
    fields = [row_field(view, 1) for view in views]
    commands = [[b"HMGET", encoder.encode([key]) or b"", *fields] for key in keys]
    commands.append([b"HMGET", views_key(project), *map(generation_field, views)])
    return b"".join(
        b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command)
        for command in commands
    )


def load(job: Job) -> tuple[list[int], float]:
    """Returns what the client measures in a process of its own: all latencies in microseconds, and the seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.online.load"],
        cwd=PROJECT,
        input=job.to_json() + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    if told["failures"]:
        raise RuntimeError(f"a request failed: {told['failures'][0]}")
    return told["latencies_us"], told["seconds"]
