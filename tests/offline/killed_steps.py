"""Runs works once for each of their steps, killed at that step: `killed_steps.py HOW FROM TO WORK...`.

WORK is `land`, `compact`, `erase` or `transform`.

HOW is `files` (steps are what touches files and locks) or `calls` (steps are all calls in the code at work). Each run
works in a copy of the folder FROM, in TO, called after what it does and its step. One process imports everything, and
forks of it are killed: importing takes seconds.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource, RepoConfig

from store.kernel.definitions import Column
from store.offline.compaction import compact
from store.offline.erasure import KeyPart, erase_landed
from store.offline.landed_files import ScratchFile, publish_next
from store.offline.row_transformations import RowTransformation
from store.offline.transformed_files import open_rows

WATCHED = ("compaction.py", "erasure.py", "landed_files.py", "files.py", "transformed_files.py")
FILE_EVENTS = ("open", "os.", "fcntl.")


def land(folder: Path) -> None:
    """Lands one row, as a push does."""
    scratch = ScratchFile(folder)
    pq.write_table(pa.table({"n": [-1]}), scratch.file)
    scratch.sync()
    publish_next(scratch, 0)


def erase(folder: Path) -> None:
    """Erases the rows of one entity, as the command does."""
    erase_landed(folder, [(KeyPart(Column("n", "INT64"), 3),)])


def doubled(frame: pd.DataFrame) -> pd.DataFrame:
    """Leaves out multiples of three, and doubles the rest."""
    frame = frame[frame["n"] % 3 != 0]
    return frame.assign(n=frame["n"] * 2)


def doubling() -> RowTransformation:
    """Returns the transformation of a view by that function."""
    feature = (Column("n", "INT64"),)
    return RowTransformation(
        "doubles", "pandas", doubled, "doubled", (), "event_timestamp", "", feature, (), keeps_keys=False, in_file={}
    )


def settings_of(repo: Path) -> RepoConfig:
    """Returns settings of a repo, of which only the folder matters here."""
    online = {"type": "sqlite", "path": str(repo / "online.db")}
    return RepoConfig(
        project="tests", provider="local", registry=str(repo / "registry.db"), online_store=online, repo_path=repo,
        entity_key_serialization_version=3,
    )  # fmt: skip


def transform(repo: Path) -> None:
    """Opens a source, all of whose files that have not gone through the transformation then do."""
    source = FileSource(name="stats", path="data/stats", timestamp_field="event_timestamp")
    open_rows(settings_of(repo), source, doubling())


WORKS = {"land": land, "compact": compact, "erase": erase, "transform": transform}


def kill_at(how: str, step: int) -> None:
    """Kills this process at a step of what it does from now on."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        # The kill itself is such an event, too.
        if left == -1:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_call(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code.co_filename.endswith(WATCHED):
            count()

    if how == "files":
        sys.addaudithook(lambda event, _: count() if event.startswith(FILE_EVENTS) else None)
    else:
        sys.setprofile(on_call)


def is_killed(work: Callable[[Path], object], folder: Path, how: str, step: int) -> bool:
    """Runs the work in a fork that is killed at a step; whether it came so far."""
    child = os.fork()
    if child == 0:
        kill_at(how, step)
        work(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"step {step} failed"
    return os.WIFSIGNALED(status)


def main(how: str, template: Path, target: Path, names: list[str]) -> None:
    """Runs each kind of work once for each step, and once more without being killed."""
    for work in (WORKS[name] for name in names):
        if work is transform:
            # pandas and Feast import parts of themselves when they are used: a second, in each fork anew.
            settings_of(template)
            doubling().rows(pa.table({"n": [1, 3], "event_timestamp": pa.array([1, 2], pa.timestamp("us", "UTC"))}))
        step = 0
        while True:
            folder = target / work.__name__ / f"{step:04}"
            shutil.copytree(template, folder)
            if not is_killed(work, folder, how, step):
                break
            step += 1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
