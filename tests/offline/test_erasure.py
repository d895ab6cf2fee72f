"""Erasure in landed files: the wanted rows go, everything else stays as it is, at every moment and for everybody."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import SourceUnreadable
from store.kernel.definitions import Column
from store.offline import erasure
from store.offline.compaction import compact
from store.offline.erasure import KeyPart, WantedKey, erase_landed, landed_rows, users_rows
from store.offline.landed_files import ReadGuard, ScratchFile, list_landed, publish_next
from tests.offline.feature_stores import config_for, instants, write
from tests.offline.reading import source_at

ROOT = Path(__file__).parent.parent.parent


def key(**values: tuple[str, Any]) -> WantedKey:
    return tuple(KeyPart(Column(name, type_name), value) for name, (type_name, value) in values.items())


def user(number: int) -> WantedKey:
    return key(user=("INT64", number))


def land(folder: Path, users: Sequence[int | None], group_rows: int = 2) -> Path:
    """Lands rows of some users, numbered by all that landed before."""
    first = len(rows_of(folder)) if folder.is_dir() else 0
    scratch = ScratchFile(folder)
    table = pa.table({"user": pa.array(users, pa.int64()), "n": list(range(first, first + len(users)))})
    pq.write_table(table, scratch.file, row_group_size=group_rows)
    scratch.sync()
    return publish_next(scratch, 0)


def rows_of(folder: Path) -> list[Any]:
    """Returns the rows as a reader sees them."""
    guard = ReadGuard(folder)
    tables = [pq.read_table(folder / file.name) for file in list_landed(folder).files]
    guard.drop()
    return [(row["user"], row["n"]) for table in tables for row in table.to_pylist()]


def bytes_on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".parquet"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "stats.landed"


def test_the_rows_go_and_the_others_keep_their_order_and_files_without_any_their_bytes(folder: Path) -> None:
    land(folder, [1, 2, 3, 1])
    untouched = land(folder, [2, 3, None])
    land(folder, [1, 1])
    before = untouched.stat()
    [first, last] = erase_landed(folder, [user(1)])
    assert (first.rows, last.rows) == (2, 2)
    assert rows_of(folder) == [(2, 1), (3, 2), (2, 4), (3, 5), (None, 6)]
    after = untouched.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert len(bytes_on_disk(folder)) == 3
    assert landed_rows(folder, [user(1)]) == []
    assert erase_landed(folder, [user(1)]) == []


def test_erased_compacted_and_landed_files_stand_for_each_other_in_any_order(folder: Path) -> None:
    land(folder, [1, 2])
    land(folder, [1, 3])
    erase_landed(folder, [user(1)])
    assert rows_of(folder) == [(2, 1), (3, 3)]
    compact(folder)
    erase_landed(folder, [user(2)])
    assert rows_of(folder) == [(3, 3)]
    land(folder, [4, 5])
    erase_landed(folder, [user(3)])
    erase_landed(folder, [user(5)])
    assert [row[0] for row in rows_of(folder)] == [4]
    compact(folder)
    land(folder, [6])
    assert [row[0] for row in rows_of(folder)] == [4, 6]
    assert len(bytes_on_disk(folder)) == 2


def test_a_reader_goes_on_and_the_rows_leave_the_disk_when_it_has_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = land(folder, [1, 2])
    guard = ReadGuard(folder)
    monkeypatch.setattr(erasure, "ERASE_READERS_WAIT_SECONDS", 0)
    erase_landed(folder, [user(1)])
    assert pq.read_table(path).num_rows == 2, "what the reader has listed is there until it ends"
    assert rows_of(folder) == [(2, 1)]
    assert [(found.path, found.rows) for found in landed_rows(folder, [user(1)])] == [(str(path), 1)]
    monkeypatch.setattr(erasure, "ERASE_READERS_WAIT_SECONDS", 30)
    ending = threading.Timer(0.2, guard.drop)
    ending.start()
    assert erase_landed(folder, [user(1)]) == []
    ending.join()
    assert landed_rows(folder, [user(1)]) == []
    assert not path.exists()


def test_a_file_of_which_nothing_is_left_keeps_its_columns(folder: Path) -> None:
    path = land(folder, [1])
    kinds = pq.read_schema(path)
    erase_landed(folder, [user(1)])
    [left] = bytes_on_disk(folder)
    assert pq.read_schema(folder / left).equals(kinds)
    assert rows_of(folder) == []


def test_what_a_killed_push_left_goes_and_what_others_put_there_stays(folder: Path) -> None:
    path = land(folder, [1])
    (folder / ".staged-0123456789abcdef").write_bytes(path.read_bytes())
    foreign = folder / "mine.parquet"
    foreign.write_bytes(path.read_bytes())
    erase_landed(folder, [user(1)])
    assert not (folder / ".staged-0123456789abcdef").exists()
    assert pq.read_table(foreign).num_rows == 1
    assert landed_rows(folder, [user(1)]) == []


def test_a_damaged_file_is_named_and_no_folder_is_no_row(folder: Path) -> None:
    assert (erase_landed(folder, [user(1)]), landed_rows(folder, [user(1)])) == ([], [])
    path = land(folder, [1])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SourceUnreadable, match=path.name):
        erase_landed(folder, [user(1)])


@pytest.mark.parametrize(
    ("values", "type_name", "wanted", "rows"),
    [
        (pa.array([7, 8, None], pa.int32()), "INT64", 7, 1),
        (pa.array([7.0, 7.5, None]), "INT64", 7, 1),
        (pa.array([7, 8], pa.decimal128(5, 1)), "INT64", 7, 1),
        (pa.array(["7", "77", "7 "]), "STRING", "7", 1),
        (pa.array(["7", "7"]).dictionary_encode(), "STRING", "7", 2),
        (pa.array([True, False, None]), "BOOL", True, 1),
        (pa.array([b"7", b"77"]), "BYTES", b"7", 1),
        (pa.array([0.1, 0.2], pa.float32()), "FLOAT", 0.10000000149011612, 1),
        (instants(7_000_000, 7_999_999, 8_000_000), "UNIX_TIMESTAMP", 7, 2),
        (pa.array([UUID(int=7).bytes], pa.uuid()), "UUID", str(UUID(int=7)), 1),
    ],
)
def test_values_are_compared_by_the_declared_type(
    repo: Path, values: pa.Array, type_name: str, wanted: Any, rows: int
) -> None:
    path = write(repo, {"k": values, "event_timestamp": instants(*range(len(values)))})
    found = users_rows(config_for(repo), source_at("data/stats.parquet"), [key(k=(type_name, wanted))])
    assert [(file.path, file.rows) for file in found] == [(str(path), rows)]


def test_all_parts_of_a_key_have_to_match_and_any_key_will_do(repo: Path) -> None:
    write(repo, {"d": [1, 1, 2], "c": ["x", "y", "x"], "event_timestamp": instants(1, 2, 3)})
    config, source = config_for(repo), source_at("data/stats.parquet")

    def rows(*wanted: WantedKey) -> int:
        return sum(file.rows for file in users_rows(config, source, wanted))

    both = key(d=("INT64", 1), c=("STRING", "x"))
    assert (rows(both), rows(key(c=("STRING", "x"))), rows(both, key(d=("INT64", 2)))) == (1, 2, 2)
    assert rows(key(d=("INT64", 1), other=("INT64", 1))) == 0


def test_values_in_the_paths_of_files_count_and_files_of_others_in_the_landed_folder_are_the_users(repo: Path) -> None:
    for number in (1, 2):
        write(repo, {"n": [1, 2], "event_timestamp": instants(1, 2)}, f"data/stats/user={number}/a.parquet")
    land(repo / "data/stats.landed", [1])
    foreign = write(repo, {"user": [1], "n": [1], "event_timestamp": instants(1)}, "data/stats.landed/mine.parquet")
    found = users_rows(config_for(repo), source_at("data/stats"), [user(1)])
    own = str(repo / "data/stats/user=1/a.parquet")
    assert {file.path: file.rows for file in found} == {own: 2, str(foreign): 1}


@pytest.mark.parametrize(("how", "steps_min"), [("files", 20), pytest.param("calls", 40, marks=pytest.mark.long)])
def test_an_erasure_killed_at_any_step_loses_no_other_row_and_is_finished_by_the_next(
    tmp_path: Path, how: str, steps_min: int
) -> None:
    template, target = tmp_path / "template", tmp_path / "killed"
    for users in ([3, 1], [2], [3], [4, 3, 5]):
        land(template, users)
    # An earlier compaction, whose replaced files somebody still read.
    guard = ReadGuard(template)
    compact(template)
    guard.drop()
    land(template, [3, 6])
    for path in template.glob("*.parquet"):
        table = pq.read_table(path)
        pq.write_table(pa.table({"n": table["user"], "user": table["user"]}), path)
    script = Path(__file__).with_name("killed_steps.py")
    command = [sys.executable, str(script), how, str(template), str(target), "erase"]
    subprocess.run(command, cwd=ROOT, check=True, env=dict(os.environ))
    folders = sorted((target / "erase").iterdir())
    assert len(folders) > steps_min
    seen = set()
    for folder in folders:
        kept = [row[0] for row in rows_of(folder)]
        seen.add(tuple(kept))
        assert [number for number in kept if number != 3] == [1, 2, 4, 5, 6], folder.name
        erase_landed(folder, [user(3)])
        assert [row[0] for row in rows_of(folder)] == [1, 2, 4, 5, 6], folder.name
        assert landed_rows(folder, [user(3)]) == []
        assert list(folder.glob(".staged-*")) == []
    # Each file is replaced by one step of its own.
    assert seen == {(3, 1, 2, 3, 4, 3, 5, 3, 6), (1, 2, 4, 5, 3, 6), (1, 2, 4, 5, 6)}
