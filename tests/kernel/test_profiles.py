"""Profiles of two stretches become that of both, and what does not fit together is told."""

from dataclasses import replace

from store.kernel.profiles import ColumnProfile, Kind, Profile
from tests.monitor.profiles import columns


def profile(*found: ColumnProfile, rows: int = 10) -> Profile:
    return Profile(rows, {column.name: column for column in found})


def test_a_feature_that_only_one_has_keeps_its_rows() -> None:
    temp = columns()["temp"]
    merged = profile(temp).merge(profile(replace(temp, name="other")))
    assert merged.rows == 20
    assert (merged.columns["temp"], merged.columns["other"].rows) == (temp, 10)
    assert merged.notes == ()


def test_a_type_that_changed_is_told() -> None:
    temp = columns()["temp"]
    merged = profile(temp).merge(profile(replace(temp, type_name="Float32")))
    assert merged.columns["temp"].rows == 20
    [note] = merged.notes
    assert note.startswith("feature 'temp' changed its type from Float64 to Float32")


def test_of_a_kind_that_changed_the_one_of_more_rows_stays() -> None:
    temp = columns()["temp"]
    text = replace(columns()["sky"], name="temp", rows=11)
    for one, other in ((temp, text), (text, temp)):
        merged = profile(one).merge(profile(other))
        assert merged.columns["temp"] == text
        assert "only its values as String are summed up" in merged.notes[0]
    assert (temp.kind, text.kind) == (Kind.NUMBER, Kind.CATEGORY)


def test_notes_are_said_once() -> None:
    one = Profile(1, {}, ("the same",))
    assert one.merge(one).notes == ("the same",)
