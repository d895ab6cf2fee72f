"""Features and their references: found however each side names them, and never guessed."""

import pytest

from store.monitor.drift_names import match
from store.monitor.subjects import Subject, SubjectKind

VIEW = Subject(SubjectKind.FEATURE_VIEW, "weather")
OTHER = Subject(SubjectKind.FEATURE_VIEW, "planes")
SERVICE = Subject(SubjectKind.FEATURE_SERVICE, "delays")
TRAINED = Subject(SubjectKind.TRAINING_SET, "year")
PUSHED = Subject(SubjectKind.PUSH_SOURCE, "readings")


@pytest.mark.parametrize(
    ("current", "name", "reference", "theirs"),
    [
        (VIEW, "temp", VIEW, "temp"),
        (VIEW, "temp", TRAINED, "temp"),
        (VIEW, "temp", TRAINED, "weather__temp"),
        (VIEW, "temp", SERVICE, "weather:temp"),
        (VIEW, "temp", PUSHED, "temp"),
        (SERVICE, "weather:temp", SERVICE, "weather:temp"),
        (SERVICE, "weather:temp", TRAINED, "weather__temp"),
        (SERVICE, "weather:temp", TRAINED, "temp"),
        (SERVICE, "weather:temp", VIEW, "temp"),
        (TRAINED, "weather__temp", SERVICE, "weather:temp"),
        (TRAINED, "temp", SERVICE, "weather:temp"),
        (TRAINED, "temp", VIEW, "temp"),
        (TRAINED, "temp", TRAINED, "temp"),
        (PUSHED, "temp", VIEW, "temp"),
    ],
)
def test_a_feature_is_found_under_the_name_that_the_other_side_has(
    current: Subject, name: str, reference: Subject, theirs: str
) -> None:
    found = match(current, [name], reference, [theirs, "label"])
    assert (found.matched, found.refused) == ({name: theirs}, {})
    assert found.gone == ["label"]


@pytest.mark.parametrize(
    ("current", "name", "reference", "theirs"),
    [
        (SERVICE, "planes:temp", VIEW, "temp"),
        (SERVICE, "planes:temp", TRAINED, "weather__temp"),
        (VIEW, "temp", OTHER, "humid"),
        (VIEW, "temp", SERVICE, "planes:temp"),
    ],
)
def test_a_feature_of_another_view_is_not_it(current: Subject, name: str, reference: Subject, theirs: str) -> None:
    found = match(current, [name], reference, [theirs])
    assert found.matched == {}
    assert f"the reference {reference} has no such feature" in found.refused[name]


def test_a_name_that_tells_the_view_goes_before_one_that_does_not() -> None:
    found = match(SERVICE, ["weather:temp"], TRAINED, ["temp", "weather__temp"])
    assert found.matched == {"weather:temp": "weather__temp"}


def test_a_plain_name_for_two_views_is_refused_by_name() -> None:
    found = match(TRAINED, ["temp"], SERVICE, ["weather:temp", "planes:temp"])
    assert found.matched == {}
    assert "'planes:temp' or 'weather:temp'" in found.refused["temp"]


def test_two_views_for_a_plain_name_are_refused_by_name() -> None:
    found = match(SERVICE, ["weather:temp", "planes:temp"], TRAINED, ["temp"])
    assert found.matched == {}
    for name in ("weather:temp", "planes:temp"):
        assert "'planes:temp' or 'weather:temp'" in found.refused[name]
        assert "full_feature_names" in found.refused[name]
