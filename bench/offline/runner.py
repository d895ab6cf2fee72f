"""Runs a figure: one process per entry, answers first, then rounds in which all entries take turns."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench.offline import dataset
from bench.offline.answers import AnswerDigest
from bench.offline.figures import Entry, Figure
from bench.offline.measurements import Measurement
from bench.offline.task import Task, bucket_us

PROJECT = Path(__file__).resolve().parents[2]
SECONDS_TO_END = 60


class ContenderFailed(Exception):
    """A contender's process ended or reported an error; the message is its own."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What all entries of a run share."""

    data: Path
    threads: int
    rounds: int


class Process:
    """A contender in a process of its own, alive until the block is left."""

    def __init__(self, task: Task) -> None:
        # Polars and Arrow read their thread counts when they are imported.
        environment = os.environ | {"POLARS_MAX_THREADS": str(task.threads), "OMP_NUM_THREADS": str(task.threads)}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "bench.offline.child"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._task = task

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(self) -> dict[str, Any]:
        """Returns the contender's versions and whether it keeps order, once it is ready to run."""
        return self._ask(self._task.to_json())

    def run(self, *, wants_digest: bool = False) -> dict[str, Any]:
        """Returns the measurement of one run."""
        return self._ask("run digest" if wants_digest else "run")

    def close(self) -> None:
        """Ends the process; one that does not end by itself is killed."""
        if self._child.stdin and not self._child.stdin.closed:
            self._child.stdin.close()
        try:
            self._child.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout:
            self._child.stdout.close()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._child.stdin
        assert self._child.stdout
        try:
            self._child.stdin.write(f"{line}\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise ContenderFailed(f"its process ended with status {self._child.wait()}") from None
        answer = self._child.stdout.readline()
        if not answer:
            raise ContenderFailed(f"its process ended with status {self._child.wait()}")
        reply: dict[str, Any] = json.loads(answer)
        if "error" in reply:
            raise ContenderFailed(reply["error"])
        return reply


def make_task(entry: Entry, settings: Settings, scratch: Path) -> Task:
    """Returns the task of an entry, its data made where they are missing."""
    return Task(
        contender=entry.contender,
        history=tuple(str(file) for file in dataset.history(settings.data, entry.shape)),
        entities=str(dataset.entity_rows(settings.data, entry.shape, entry.entity_rows)),
        scratch=str(scratch),
        threads=settings.threads,
        bucket_us=bucket_us(entry.shape),
        is_cut_by_created=entry.is_cut_by_created,
        memory_limit=entry.memory_limit,
        output=str(scratch / "answer.parquet") if entry.writes_parquet else None,
        is_entity_path=entry.writes_parquet,
    )


def measure(figure: Figure, settings: Settings, say: Callable[[str], None]) -> list[Measurement]:
    """Returns one measurement per entry of the figure, in order; one that failed or differs has no times.

    The first run of each process warms it up and gives the answer. Only entries whose answers agree are timed.
    """
    with ExitStack() as stack:
        # Beside the data, since the system's temporary folder may be memory.
        settings.data.mkdir(parents=True, exist_ok=True)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=settings.data, prefix="scratch-")))
        found: list[Measurement] = []
        alive: list[tuple[Measurement, Process]] = []
        rounds = settings.rounds if figure.rounds_max is None else min(settings.rounds, figure.rounds_max)
        for number, entry in enumerate(figure.entries):
            task = make_task(entry, settings, scratch / str(number))
            say(f"{figure.name}: {entry.label} answers")
            process = stack.enter_context(Process(task))
            found.append(_first_run(entry, process))
            if entry.is_timed and rounds:
                alive.append((found[-1], process))
            else:
                process.close()
        _compare(figure, found)
        for turn in range(rounds):
            say(f"{figure.name}: round {turn + 1} of {rounds}")
            _take_turns([pair for pair in alive if pair[0].failure is None], turn)
        return found


def _first_run(entry: Entry, process: Process) -> Measurement:
    measurement = Measurement(entry.label)
    try:
        ready = process.prepare()
        measurement.versions, measurement.keeps_order = ready["versions"], ready["keeps_order"]
        reply = process.run(wants_digest=True)
    except ContenderFailed as error:
        measurement.failure = str(error)
        return measurement
    measurement.digest = AnswerDigest(**reply["digest"])
    measurement.peak_bytes = reply["peak_bytes"]
    measurement.wall_s, measurement.cpu_s = [reply["wall_s"]], [reply["cpu_s"]]
    return measurement


def _compare(figure: Figure, found: list[Measurement]) -> None:
    """Marks every entry whose answer is not that of the hand-written SQL, or of the first where that is not there."""
    references: dict[tuple[object, ...], Measurement] = {}
    pairs = sorted(zip(figure.entries, found, strict=True), key=lambda pair: pair[0].contender != "sql")
    for entry, measurement in pairs:
        if measurement.digest is None:
            continue
        reference = references.setdefault(entry.question, measurement)
        assert reference.digest is not None
        difference = measurement.digest.difference(reference.digest)
        if difference:
            measurement.failure = f"answers otherwise than {reference.label}: {difference}"


def _take_turns(alive: list[tuple[Measurement, Process]], turn: int) -> None:
    """Lets every contender run once, beginning with another one each turn; the times of the first run are dropped."""
    start = turn % max(1, len(alive))
    for measurement, process in alive[start:] + alive[:start]:
        try:
            reply = process.run()
        except ContenderFailed as error:
            measurement.failure = str(error)
            continue
        if turn == 0:
            measurement.wall_s, measurement.cpu_s = [], []
        measurement.wall_s.append(reply["wall_s"])
        measurement.cpu_s.append(reply["cpu_s"])
