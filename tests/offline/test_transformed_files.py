"""Transformed files: made once for each file of a source, read in its place, and gone when it is."""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.errors import SourceColumnMissing, SourceError, SourceUnreadable, TransformationError
from store.limits import TRANSFORMED_VERSIONS_KEPT
from store.offline import transformed_files
from store.offline.compaction import compact
from store.offline.row_transformations import RowTransformation
from store.offline.sources import LARDER_ID, Source
from store.offline.transformed_files import forget_transformed, open_rows, transformed_paths
from tests.offline.feature_stores import config_for, instants
from tests.offline.killed_steps import doubling, land
from tests.offline.reading import needed, rows_of, source_at

ROOT = Path(__file__).parents[2]
LANDED = "data/stats.landed"


def rows(*numbers: int | None, **more: Any) -> dict[str, Any]:
    return {"n": pa.array(numbers, pa.int64()), "event_timestamp": instants(*[1_000_000] * len(numbers)), **more}


def write(repo: Path, name: str, columns: dict[str, Any]) -> Path:
    path = repo / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def settle(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has files that were just written count as such that no later write can be taken for."""
    monkeypatch.setattr(transformed_files, "SETTLED_NS", 0)


def opened(repo: Path, transformation: RowTransformation | None = None, **fields: Any) -> Source:
    return open_rows(config_for(repo), source_at("data/stats", **fields), transformation or doubling())


def numbers(repo: Path, transformation: RowTransformation | None = None, **fields: Any) -> list[Any]:
    found: list[Any] = rows_of(opened(repo, transformation, **fields), needed("n")).column("n").to_pylist()
    return found


def kept(repo: Path) -> list[Path]:
    return transformed_paths(config_for(repo), "doubles")


def test_each_file_goes_through_it_once_and_is_read_in_its_place(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    write(repo, "stats/b.parquet", rows(4, 3, None, 5))
    write(repo, "stats/a.parquet", rows(1, 2))
    write(repo, "stats/empty.parquet", rows())
    assert numbers(repo) == [2, 4, 8, 10]
    before = {path: path.stat().st_mtime_ns for path in kept(repo)}
    assert len(before) == 3
    land(repo / "data" / "stats.landed")
    write(repo, "stats/c.parquet", rows(7))
    (repo / LANDED).mkdir(exist_ok=True)
    assert numbers_of_landed(repo, [[10], [12, 11]]) == [2, 4, 8, 10, 14, 20, 22]
    after = {path: path.stat().st_mtime_ns for path in kept(repo)}
    assert before.items() <= after.items()
    assert len(after) == 6


def numbers_of_landed(repo: Path, files: Sequence[Sequence[int]]) -> list[Any]:
    """Returns the numbers of a source with landed files of its own columns."""
    for path in (repo / LANDED).glob("*.parquet"):
        path.unlink()
    for place, values in enumerate(files):
        pq.write_table(pa.table(rows(*values)), repo / LANDED / f"{place:020d}-{place:016x}.parquet")
    return numbers(repo)


def test_files_of_files_that_went_away_are_removed(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    write(repo, "stats/a.parquet", rows(1))
    (repo / LANDED).mkdir()
    assert numbers_of_landed(repo, [[2], [4], [5]]) == [2, 4, 8, 10]
    assert len(kept(repo)) == 4
    assert len(compact(repo / LANDED).merges) == 1
    write(repo, "stats/a.parquet", rows(8))
    assert numbers(repo) == [16, 4, 8, 10]
    assert len(kept(repo)) == 2


def test_a_file_that_was_just_written_is_never_taken_for_another(repo: Path) -> None:
    for number in (1, 2, 4):
        write(repo, "stats/a.parquet", rows(number))
        assert numbers(repo) == [2 * number]
    assert numbers(repo) == [8]
    assert len(kept(repo)) <= 2


def test_earlier_definitions_are_kept_up_to_a_bound(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    write(repo, "stats/a.parquet", rows(1))
    views = [
        replace(doubling(), text=f"version {number}", function=lambda frame, by=number: frame.assign(n=by))
        for number in range(TRANSFORMED_VERSIONS_KEPT + 2)
    ]
    for number, view in enumerate(views):
        assert numbers(repo, view) == [number]
        assert len(kept(repo)) == min(number + 1, TRANSFORMED_VERSIONS_KEPT)
    # What is still asked for is not made anew.
    [*_, newest] = sorted(kept(repo), key=lambda path: path.stat().st_mtime_ns)
    assert numbers(repo, views[-1]) == [len(views) - 1]
    assert max(path.stat().st_mtime_ns for path in kept(repo)) == newest.stat().st_mtime_ns


def test_files_stay_as_long_as_they_are_read(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    write(repo, "stats/a.parquet", rows(1))
    reading = opened(repo)
    forget_transformed(config_for(repo), "doubles", wait_seconds=0)
    write(repo, "stats/a.parquet", rows(2))
    assert numbers(repo) == [4]
    assert rows_of(reading, needed("n")).column("n").to_pylist() == [2]
    del reading
    forget_transformed(config_for(repo), "doubles", wait_seconds=0)
    assert kept(repo) == []
    assert not (repo / "data" / "transformed" / "tests.doubles").exists()


def test_many_open_a_source_at_once(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    expected = []
    for number in range(12):
        write(repo, f"stats/{number:02}.parquet", rows(*range(number * 10, number * 10 + 10)))
        expected += [2 * n for n in range(number * 10, number * 10 + 10) if n % 3]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: numbers(repo), range(16)))
    assert all(each == expected for each in found)
    assert len(kept(repo)) == 12


def test_what_fails_leaves_nothing_behind(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(repo, monkeypatch)
    write(repo, "stats/a.parquet", rows(1))
    broken = write(repo, "stats/b.parquet", rows(*range(200)))

    def fails_late(frame: Any) -> Any:
        if (frame["n"] > 150).any():
            raise ValueError("too many")
        return frame

    view = replace(doubling(), function=fails_late)
    with pytest.raises(TransformationError, match=rf"'fails_late' failed: ValueError: too many.*file '{broken}'"):
        opened(repo, view)
    assert [path for path in (repo / "data" / "transformed").rglob("*") if path.name.startswith(".staged")] == []
    assert len(kept(repo)) == 1


def test_a_folder_that_cannot_be_written_is_named(repo: Path) -> None:
    write(repo, "stats/a.parquet", rows(1))
    (repo / "data" / "transformed").write_text("in the way")
    with pytest.raises(SourceError, match=r"cannot be kept in '.*data/transformed/tests\.doubles': .*make it a folder"):
        opened(repo)


def test_a_file_that_cannot_be_read_is_named(repo: Path) -> None:
    write(repo, "stats/a.parquet", rows(1))
    path = write(repo, "stats/b.parquet", rows(*range(100)))
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=rf"'{path}' cannot be read"):
        opened(repo)


def test_a_file_that_lacks_a_time_which_others_have_is_named(repo: Path) -> None:
    write(repo, "stats/a.parquet", rows(1))
    path = write(repo, "stats/b.parquet", {"n": [1]})
    with pytest.raises(SourceColumnMissing, match=rf"column 'event_timestamp' is not in source file '{path}'"):
        opened(repo)


def test_files_of_other_types_and_columns_in_paths_are_handed_over_alike(repo: Path) -> None:
    seen: list[Any] = []

    def look(frame: Any) -> Any:
        seen.append(({name: str(kind) for name, kind in frame.dtypes.items()}, frame.to_dict("records")[0]))
        return frame

    small = {"n": pa.array([1], pa.int8()), "event_timestamp": instants(1, unit="ns")}
    write(repo, "stats/day=2026-01-01/a.parquet", small)
    labelled = rows(2, label=pa.array(["x"]).dictionary_encode())
    write(repo, "stats/day=2026-01-02/b.parquet", labelled)
    opened(repo, replace(doubling(), function=look))
    types = {"n": "Int64", "event_timestamp": "datetime64[ns, UTC]", "label": "object", "day": "object"}
    assert all(dtypes == types for dtypes, _ in seen)
    assert {row["day"] for _, row in seen} == {"2026-01-01", "2026-01-02"}
    assert {row["label"] for _, row in seen} == {None, "x"}


def test_event_times_in_paths_are_handed_over_as_times(repo: Path) -> None:
    write(repo, "stats/day=2026-01-02/a.parquet", {"n": [1]})
    view = replace(doubling(), event="day")
    found = rows_of(opened(repo, view, timestamp_field="day"), needed("n", event="day"))
    assert found.column("n").to_pylist() == [2]
    assert found.column("e").to_pylist() == [(date(2026, 1, 2) - date(1970, 1, 1)).days * 86_400_000_000_000]


def test_columns_have_their_names_in_the_file(repo: Path) -> None:
    write(repo, "stats/a.parquet", {"count": [1, 2], "at": instants(1, 2)})
    mapping = {"count": "n", "at": "event_timestamp"}
    view = replace(doubling(), in_file={name: stored for stored, name in mapping.items()})
    source = opened(repo, view, field_mapping=mapping, timestamp_field="at")
    assert source.schema.names == ["at", "count"]
    assert rows_of(source, needed("count", event="at")).column("count").to_pylist() == [2, 4]


def test_ids_of_events_follow_their_rows(repo: Path) -> None:
    write(repo, "stats/a.parquet", rows(1))
    (repo / LANDED).mkdir()
    stamped = rows(3, 4, 5, 6, **{LARDER_ID: pa.array([30, 40, 50, 60], pa.int64())})
    pq.write_table(pa.table(stamped), repo / LANDED / f"{1:020d}-{1:016x}.parquet")
    source = opened(repo)
    assert LARDER_ID not in source.schema.names
    [own, landed] = [pq.read_table(path) for path in source.paths]
    assert LARDER_ID not in own.column_names
    assert landed.select(["n", LARDER_ID]).to_pydict() == {"n": [8, 10], LARDER_ID: [40, 50]}


@pytest.mark.parametrize(
    ("how", "files", "steps_min"),
    [("files", 1, 15), *(pytest.param(how, 2, 25, marks=pytest.mark.long) for how in ("files", "calls"))],
)
def test_killed_at_any_step_all_rows_are_there(
    repo: Path, tmp_path: Path, how: str, files: int, steps_min: int
) -> None:
    for number in range(files):
        write(repo, f"stats/{number}.parquet", rows(number * 3, number * 3 + 1, number * 3 + 2))
    target = tmp_path / "killed"
    script = Path(__file__).with_name("killed_steps.py")
    command = [sys.executable, str(script), how, str(repo), str(target), "transform"]
    subprocess.run(command, cwd=ROOT, check=True)
    folders = sorted((target / "transform").iterdir())
    assert len(folders) >= steps_min
    for folder in folders:
        assert numbers(folder) == [2, 4, 8, 10][: files * 2], folder.name
        forget_transformed(config_for(folder), "doubles", wait_seconds=0)
        assert [path for path in (folder / "data" / "transformed").rglob("*") if path.is_dir()] == [], folder.name
