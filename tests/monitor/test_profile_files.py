"""Kept profiles: what was kept is read again, the newest of each stretch; what is damaged is named and left out."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import OfflineStoreError
from store.limits import PROFILE_FEATURES_MAX, PROFILE_NAME_CHARACTERS_MAX
from store.monitor import kept_runs, profile_files
from store.monitor.profile_files import ProfileFiles
from store.monitor.profile_form import FORMAT_VERSION, NOTE_KEY, SCHEMA
from store.monitor.slices import best_slices, gaps
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile
from tests.monitor.profiles import DAY_US, VIEW, columns, days, numbers, profile

GOLDEN = Path(__file__).parent / "golden" / "profile_1.parquet"


@pytest.fixture
def files(repo: Path) -> ProfileFiles:
    return ProfileFiles(repo)


def folder_of(repo: Path) -> Path:
    return repo / "data" / "monitor" / "profiles" / "feature_view" / "weather"


# --- keeping and reading ------------------------------------------------------------------------


def test_what_was_kept_is_read_again_to_the_last_digit(files: ProfileFiles) -> None:
    kept = profile(days(0, 1))
    files.append(kept)
    [read] = files.read(VIEW)
    assert read == kept
    assert [*read.columns] == [*kept.columns]
    assert type(read.columns["count"].numbers.greatest) is int  # type: ignore[union-attr]
    assert files.problems == []


def test_profiles_come_in_order_of_time_also_before_1970(files: ProfileFiles) -> None:
    spans = [days(3, 4), days(-800_000, -700_000), days(0, 1), days(-1, 0)]
    paths = [files.append(profile(span)) for span in spans]
    assert [each.span for each in files.read(VIEW)] == sorted(spans)
    assert [path.name for path in sorted(paths)] == [paths[i].name for i in (1, 3, 2, 0)]


@pytest.mark.parametrize("computed_us", [4, 5, 6])
def test_a_later_run_supersedes_whatever_the_clock_says(files: ProfileFiles, computed_us: int) -> None:
    files.append(profile(days(0, 1), rows=10))
    files.append(profile(days(0, 1), rows=20, computed_us=computed_us))
    assert [each.rows for each in files.read(VIEW)] == [20]
    assert files.newest(VIEW) == profile(days(0, 1), rows=20, computed_us=computed_us)
    assert list(files.spans(VIEW)) == [days(0, 1)]


def test_only_what_lies_within_a_span_is_read(files: ProfileFiles) -> None:
    for day in range(5):
        files.append(profile(days(day, day + 1)))
    assert [each.span for each in files.read(VIEW, days(1, 3))] == [days(1, 2), days(2, 3)]
    assert [each.span for each in files.read(VIEW, Span(DAY_US - 1, 2 * DAY_US))] == [days(1, 2)]


def test_what_was_never_profiled_is_nothing(files: ProfileFiles, repo: Path) -> None:
    assert (files.read(VIEW), files.merged(VIEW, days(0, 1)), files.newest(VIEW), files.subjects()) == (
        [],
        None,
        None,
        [],
    )
    assert not (repo / "data" / "monitor").exists()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(st.sets(NAMES | st.sampled_from([".", "..", "a/b", "%2E", "x" * 300, "x" * 301]), max_size=8))
def test_every_name_has_a_folder_of_its_own(names: set[str]) -> None:
    folders = {kept_runs.folder_name(name) for name in names}
    assert len(folders) == len(names)
    for folder in folders:
        assert 0 < len(folder.encode()) <= PROFILE_NAME_CHARACTERS_MAX + 33
        assert "/" not in folder
        assert "\0" not in folder
        assert not folder.startswith(".")


@pytest.mark.parametrize("name", ["..", "a/../../b", "x" * 500, "größe %", "data/set.parquet"])
def test_odd_names_are_kept_beside_the_others(files: ProfileFiles, repo: Path, name: str) -> None:
    odd = Subject(SubjectKind.TRAINING_SET, name)
    path = files.append(profile(days(0, 1), subject=odd))
    assert path.resolve().parent.parent == (repo / "data/monitor/profiles/training_set").resolve()
    files.append(profile(days(0, 1)))
    assert files.subjects() == [VIEW, odd]
    assert files.newest(odd) == profile(days(0, 1), subject=odd)


# --- adding up ----------------------------------------------------------------------------------


def test_slices_add_up_and_time_without_a_profile_is_told(files: ProfileFiles) -> None:
    for day in (1, 2, 4):
        files.append(profile(days(day, day + 1), computed_us=day))
    merged = files.merged(VIEW, days(0, 6))
    assert merged is not None
    assert (merged.rows, merged.span, merged.computed_us) == (30, days(1, 5), 4)
    numbers = merged.columns["temp"].numbers
    assert numbers is not None
    assert (numbers.finite, numbers.nans) == (6, 3)
    [told] = [note for note in merged.notes if note.startswith("nothing was profiled")]
    assert "1970-01-01T00:00:00+00:00 to 1970-01-02T00:00:00+00:00, 1970-01-04" in told


def test_no_row_counts_twice_where_stretches_overlap(files: ProfileFiles) -> None:
    files.append(profile(days(0, 30), rows=300))
    files.append(profile(days(3, 4), rows=11, computed_us=9))
    merged = files.merged(VIEW, days(0, 30))
    assert merged is not None
    assert merged.rows == 300
    for day in range(30):
        files.append(profile(days(day, day + 1), rows=1, computed_us=7))
    merged = files.merged(VIEW, days(0, 30))
    assert merged is not None
    # The days cover as much as the month and are newer; of the fourth day the latest run counts.
    assert merged.rows == 29 + 1


def test_a_training_set_is_its_newest_profile(files: ProfileFiles) -> None:
    subject = Subject(SubjectKind.TRAINING_SET, "january")
    files.append(profile(days(0, 30), rows=300, computed_us=5, subject=subject))
    files.append(profile(days(3, 4), rows=10, computed_us=6, subject=subject))
    merged = files.merged(subject)
    assert merged is not None
    assert (merged.rows, merged.span) == (10, days(3, 4))


SPANS = st.tuples(st.integers(0, 12), st.integers(0, 6)).map(lambda each: Span(each[0], each[0] + each[1]))


@given(st.dictionaries(SPANS, st.integers(1, 5), min_size=1, max_size=7))
def test_the_best_slices_are_those_that_trying_all_finds(spans: dict[Span, int]) -> None:
    profiles = [profile(span, computed_us=computed_us, columns={}) for span, computed_us in spans.items()]

    def score(chosen: list[SubjectProfile]) -> tuple[int, int]:
        lengths = [each.span.end_us - each.span.start_us for each in chosen]
        return sum(lengths), sum(n * each.computed_us for n, each in zip(lengths, chosen, strict=True))

    best = (0, 0)
    for mask in range(1 << len(profiles)):
        chosen = sorted((each for i, each in enumerate(profiles) if mask >> i & 1), key=lambda each: each.span)
        if all(one.span.end_us <= other.span.start_us for one, other in pairwise(chosen)):
            best = max(best, score(chosen))
    found = best_slices(profiles)
    assert found
    assert score(found) == best
    assert not any(one.span.meets(other.span) for one, other in pairwise(found))


@given(st.sets(st.integers(0, 10)), st.integers(0, 5), st.integers(0, 6))
def test_gaps_are_the_time_that_is_left(covered: set[int], start: int, length: int) -> None:
    span = Span(start, start + length)
    found = gaps([Span(each, each + 1) for each in sorted(covered)], span)
    left = {at for gap in found for at in range(gap.start_us, gap.end_us)}
    assert left == {at for at in range(start, start + length) if at not in covered}


# --- what is damaged ----------------------------------------------------------------------------


def whole_and(content: bytes, change: str) -> bytes:
    return {
        "cut in half": content[: len(content) // 2],
        "cut at its end": content[:-1],
        "empty": b"",
        "garbage": b"garbage" * 100,
        "a flipped bit": content[:200] + bytes([content[200] ^ 1]) + content[201:],
    }[change]


@pytest.mark.parametrize("change", ["cut in half", "cut at its end", "empty", "garbage", "a flipped bit"])
def test_a_damaged_profile_is_named_and_left_out(files: ProfileFiles, change: str) -> None:
    files.append(profile(days(0, 1)))
    path = files.append(profile(days(1, 2)))
    path.write_bytes(whole_and(path.read_bytes(), change))
    assert [each.span for each in files.read(VIEW)] == [days(0, 1)]
    [told] = files.problems
    assert str(path) in told
    assert told.endswith("delete it and profile that time again")
    merged = files.merged(VIEW, days(0, 2))
    assert merged is not None
    assert any(note.startswith("nothing was profiled of 1970-01-02") for note in merged.notes)
    assert files.problems == [told]


def test_of_a_damaged_run_the_one_before_is_taken(files: ProfileFiles) -> None:
    files.append(profile(days(0, 1), rows=10))
    files.append(profile(days(0, 1), rows=20)).write_bytes(b"")
    assert [each.rows for each in files.read(VIEW)] == [10]
    assert len(files.problems) == 1


def rewritten(path: Path, change: Any, note: dict[str, Any] | None = None) -> None:
    """Writes a profile anew with one thing changed."""
    table = pq.read_table(path)
    told = json.loads(table.schema.metadata[NOTE_KEY]) | (note or {})
    rows = table.to_pylist()
    change(rows)
    metadata = {NOTE_KEY: json.dumps(told).encode()}
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA.with_metadata(metadata)), path)


CONTRADICTIONS: dict[str, Any] = {
    "more nulls than rows": lambda rows: rows[0].update(nulls=11),
    "a kind that is none": lambda rows: rows[0].update(kind="colour"),
    "buckets in disorder": lambda rows: rows[0]["numbers"].update(bucket=rows[0]["numbers"]["bucket"][::-1]),
    "fewer counts than buckets": lambda rows: rows[0]["numbers"].update(count=[1]),
    "a count of nothing": lambda rows: rows[0]["numbers"].update(count=[1, 0]),
    "a bucket beyond all": lambda rows: rows[0]["numbers"].update(bucket=[1, 2**30]),
    "numbers without a least": lambda rows: rows[0]["numbers"].update(least=None),
    "a sketch that is none": lambda rows: rows[0].update(distinct=b"no sketch at all"),
    "a feature twice": lambda rows: rows[1].update(name="temp"),
    "groups that are too few": lambda rows: rows[4]["categories"].update(groups=[1]),
    "a category twice": lambda rows: rows[3]["categories"].update(name=["b", "b"]),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_profile_that_contradicts_itself_is_named_and_left_out(files: ProfileFiles, what: str) -> None:
    path = files.append(profile(days(0, 1)))
    rewritten(path, CONTRADICTIONS[what])
    assert files.read(VIEW) == []
    assert str(path) in files.problems[0]


def test_a_profile_of_a_later_version_is_named_as_such(files: ProfileFiles) -> None:
    path = files.append(profile(days(0, 1)))
    rewritten(path, lambda rows: None, {"version": FORMAT_VERSION + 1, "something": "new"})
    assert files.read(VIEW) == []
    [told] = files.problems
    assert f"profile {str(path)!r} cannot be read and was left out (it has format version 2, " in told
    assert told.endswith("reads 1); read it with a later version of Larder")


def test_files_of_others_are_named_and_left_out(files: ProfileFiles, repo: Path) -> None:
    path = files.append(profile(days(0, 1)))
    (folder_of(repo) / "notes.txt").write_text("mine")
    (folder_of(repo) / f".{path.name}.abc").write_text("half-written by a run that was killed")
    pq.write_table(pa.table({"x": [1]}), path.with_name(path.name.replace("3.parquet", "4.parquet")))
    moved = profile(days(0, 1), subject=Subject(SubjectKind.FEATURE_VIEW, "other"))
    files.append(moved).rename(path.with_name(path.name.replace("3.parquet", "5.parquet")))
    assert files.read(VIEW) == [profile(days(0, 1))]
    assert [Path(told.split("'")[1]).name[-9:] for told in files.problems] == ["4.parquet", "5.parquet", "notes.txt"]


def test_subjects_are_known_where_their_newest_profile_is_damaged(files: ProfileFiles) -> None:
    files.append(profile(days(0, 1)))
    files.append(profile(days(1, 2))).write_bytes(b"")
    assert files.subjects() == [VIEW]


# --- bounds, faults and age ---------------------------------------------------------------------


def test_more_features_than_are_kept_are_refused(files: ProfileFiles, repo: Path) -> None:
    few = {"temp": columns()["temp"]}
    many = {str(number): few["temp"] for number in range(PROFILE_FEATURES_MAX + 1)}
    with pytest.raises(OfflineStoreError, match=r"has 10001 features, and profiles hold 10000; split"):
        files.append(profile(days(0, 1), columns=many))
    assert not folder_of(repo).exists()


def test_of_too_many_files_the_latest_are_read(files: ProfileFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_files, "PROFILE_FILES_MAX", 2)
    for day in range(3):
        files.append(profile(days(day, day + 1), columns={}))
    assert [each.span for each in files.read(VIEW)] == [days(1, 2), days(2, 3)]
    assert files.problems[0].startswith("feature_view 'weather' has 3 profiles in this span, and the latest 2 are read")


def test_a_folder_that_cannot_be_written_is_named(files: ProfileFiles, repo: Path) -> None:
    (repo / "data" / "monitor").write_text("a file where the folder should be")
    with pytest.raises(OfflineStoreError, match=r"profile of feature_view 'weather' cannot be written to .*Not a dir"):
        files.append(profile(days(0, 1)))


def test_a_profile_that_cannot_be_written_leaves_nothing(
    files: ProfileFiles, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    files.append(profile(days(0, 1)))
    before = sorted(folder_of(repo).iterdir())
    monkeypatch.setattr(profile_files.os, "fsync", fail)
    with pytest.raises(OfflineStoreError, match="no room to keep the profile of feature_view 'weather'"):
        files.append(profile(days(1, 2)))
    assert sorted(folder_of(repo).iterdir()) == before


def test_old_and_superseded_profiles_are_forgotten(files: ProfileFiles) -> None:
    for day in range(4):
        files.append(profile(days(day, day + 1), columns={}))
    files.append(profile(days(3, 4), rows=1, columns={}))
    assert files.forget(VIEW, 2 * DAY_US) == 3
    assert [(each.span, each.rows) for each in files.read(VIEW)] == [(days(2, 3), 10), (days(3, 4), 1)]
    assert files.forget(VIEW, 2 * DAY_US) == 0


# --- the format ---------------------------------------------------------------------------------


def golden_profile() -> SubjectProfile:
    some = {name: column for name, column in columns().items() if name in {"temp", "count", "sky", "at", "list", "map"}}
    return profile(days(15_706, 15_707), computed_us=1_700_000_000_000_000, columns=some)


def test_a_profile_kept_by_the_first_version_is_still_read(files: ProfileFiles) -> None:
    path = files.append(golden_profile())
    path.write_bytes(GOLDEN.read_bytes())
    assert files.read(VIEW) == [golden_profile()]
    assert files.problems == []


def test_the_columns_of_the_format_are_those_of_the_first_version() -> None:
    assert pq.read_schema(GOLDEN).remove_metadata() == SCHEMA
    assert numbers([]).least is None
