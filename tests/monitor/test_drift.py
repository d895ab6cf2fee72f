"""Drift of subjects: whatever is wrong with a profile or its reference is said, and never a wrong number or a crash."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.kernel.drift_measures import Verdict
from store.kernel.profiles import ColumnProfile, Kind
from store.monitor.drift import DriftRequest, DriftRun, Reference, drift
from store.monitor.drift_report import FeatureDrift
from store.monitor.profile_files import ProfileFiles
from store.monitor.settings import CurrentSetting, FeatureSetting, MonitoringSettings, ReferenceSetting
from store.monitor.subjects import Span, Subject, SubjectKind
from tests.monitor.profiles import DAY_US, VIEW, days
from tests.monitor.samples import numeric, profile_of, served, texts

DRAW = np.random.default_rng(20)
SERVICE = Subject(SubjectKind.FEATURE_SERVICE, "delays")
TRAINED = Subject(SubjectKind.TRAINING_SET, "year")
NOW_US = 29 * DAY_US + 5
"""Day 28 is the last whole one, and the 28 days before it begin with day 0."""

TODAY = days(28, 29)
BEFORE = days(0, 28)
WARM = DRAW.normal(20, 5, 2_000).tolist()
COLD = DRAW.normal(2, 5, 1_000).tolist()


@pytest.fixture
def files(repo: Path) -> ProfileFiles:
    return ProfileFiles(repo)


def run(files: ProfileFiles, settings: MonitoringSettings | None = None, **request: object) -> DriftRun:
    return drift(files, settings or MonitoringSettings(), DriftRequest(**request), NOW_US)  # type: ignore[arg-type]


def keep(files: ProfileFiles, before: list[ColumnProfile], now: list[ColumnProfile]) -> None:
    files.append(profile_of(*before, span=BEFORE))
    files.append(profile_of(*now, span=TODAY))


def features(found: DriftRun) -> dict[str, FeatureDrift]:
    [report] = found.reports
    return {each.feature: each for each in report.features}


def test_the_last_whole_day_is_held_against_the_28_before(files: ProfileFiles) -> None:
    for day in range(28):
        files.append(profile_of(numeric("temp", WARM[day * 60 : day * 60 + 60]), span=days(day, day + 1)))
    files.append(profile_of(numeric("temp", COLD), span=TODAY))
    files.append(profile_of(numeric("temp", WARM), span=days(29, 30)))
    found = run(files)
    [report] = found.reports
    assert (report.span, report.reference_span, report.reference_rows) == (TODAY, BEFORE, 28 * 60)
    assert (report.subject, report.reference, report.computed_us) == (VIEW, VIEW, NOW_US)
    assert [each.feature for each in report.alarms] == ["temp"]
    assert found.has_alarms
    assert (found.refusals, found.problems) == ([], [])
    temp = features(found)["temp"]
    assert "the middle value is" in temp.statement
    assert "% lower)" in temp.statement
    assert sum(bar.current for bar in temp.bars) == len(COLD)
    assert sum(bar.reference for bar in temp.bars) == 28 * 60
    assert (temp.bars[0].low, temp.bars[-1].high) == (None, None)


def test_halves_of_the_same_rows_do_not_alarm(files: ProfileFiles) -> None:
    keep(
        files,
        [numeric("temp", WARM[::2]), texts("sky", ["clear", "rain"] * 500)],
        [numeric("temp", WARM[1::2]), texts("sky", ["rain", "clear"] * 400)],
    )
    found = run(files)
    assert not found.has_alarms
    assert {each.verdict for each in features(found).values()} == {Verdict.STABLE}
    assert {each.statement for each in features(found).values()} == {"as in the reference"}


def test_a_sentence_says_what_has_changed(files: ProfileFiles) -> None:
    keep(
        files,
        [
            numeric("humid", WARM, nulls=20),
            texts("sky", ["clear"] * 600 + ["rain"] * 400),
            texts("origin", ["EWR", "JFK"] * 500),
            numeric("wind", [1.0, 2.0, 3.0] * 500),
            numeric("odd", WARM),
            texts("note", [f"{number:06}" for number in range(1_000)]),
        ],
        [
            numeric("humid", WARM[:800], nulls=200),
            texts("sky", ["clear"] * 400 + ["rain"] * 600),
            texts("origin", ["EWR", "JFK"] * 480 + ["LGA"] * 40),
            numeric("wind", [0.0, 2.0, 4.0] * 500),
            numeric("odd", [*WARM[:900], *[float("inf")] * 100]),
            texts("note", [f"{number}" for number in range(1_000)]),
        ],
    )
    told = {name: each.statement for name, each in features(run(files)).items()}
    assert told["humid"] == "20.0 % have no value instead of 1.0 %"
    assert told["sky"].startswith(
        "'clear' is 40.0 % instead of 60.0 %; 'rain' is 60.0 % instead of 40.0 %; category shift 0.2"
    )
    assert told["origin"].startswith("4.0 % are of categories that the reference does not have, most of them 'LGA'")
    assert told["wind"].startswith("the middle half of the values lies from 0 to 4 instead of from 1 to 3")
    assert told["odd"] == "10.0 % are infinite instead of 0.0 %"
    assert "lengths" in told["note"]


def test_an_empty_window_is_said_and_no_alarm(files: ProfileFiles) -> None:
    keep(files, [numeric("temp", WARM)], [numeric("temp", [])])
    found = run(files)
    assert not found.has_alarms
    assert features(found)["temp"].statement.startswith("not compared: the current side has no rows")
    assert any(note.startswith("current: no rows from 1970-01-29") for note in found.reports[0].notes)


@pytest.mark.parametrize(
    ("before", "now", "verdict", "told"),
    [
        (numeric("x", WARM), numeric("x", [], nulls=500), Verdict.ALARM, "100.0 % have no value instead of 0.0 %"),
        (numeric("x", [], nulls=500), numeric("x", [], nulls=500), Verdict.STABLE, "no values, on either side"),
        (numeric("x", [], nulls=500), numeric("x", WARM), Verdict.ALARM, "0.0 % have no value instead of 100.0 %"),
        (numeric("x", [4.0] * 500), numeric("x", [4.0] * 500), Verdict.STABLE, "as in the reference"),
        (numeric("x", [4.0] * 500), numeric("x", [5.0] * 500), Verdict.ALARM, "the middle value is 5 instead of 4"),
        (numeric("x", [float("inf")] * 99), numeric("x", [float("inf")] * 99), Verdict.STABLE, "as in the reference"),
        (texts("x", ["a"] * 99), numeric("x", WARM), Verdict.ALARM, "its type changed: it was String and is Float64"),
        (numeric("x", WARM, type_name="Int64"), numeric("x", WARM), Verdict.STABLE, "its type was Int64 and is Float6"),
        (numeric("x", WARM), numeric("x", COLD[:40]), Verdict.TOO_FEW, "too few to tell: 40 values against 2,000"),
    ],
)
def test_odd_columns_have_a_clear_statement(
    files: ProfileFiles, before: ColumnProfile, now: ColumnProfile, verdict: Verdict, told: str
) -> None:
    keep(files, [before], [now])
    found = features(run(files))["x"]
    assert (found.verdict, told in found.statement) == (verdict, True), found.statement


def test_features_that_one_side_lacks_are_named(files: ProfileFiles) -> None:
    keep(files, [numeric("old", WARM), numeric("temp", WARM)], [numeric("new", WARM), numeric("temp", WARM)])
    found = run(files)
    assert not found.has_alarms
    told = features(found)
    assert [*told] == ["new", "temp", "old"]
    assert told["new"].statement == "not compared: the reference feature_view 'weather' has no such feature"
    assert told["old"].statement == "not compared: the reference has it, and the current profile does not"
    assert told["new"].verdict is told["old"].verdict is Verdict.NOT_COMPARED


def test_a_column_that_is_not_summed_up_says_why(files: ProfileFiles) -> None:
    column = ColumnProfile("m", "Map", Kind.OPAQUE, 500, 5, skipped="maps are not summed up")
    keep(files, [column], [column])
    assert (
        features(run(files))["m"].statement == "as in the reference; only nulls are compared (maps are not summed up)"
    )


def test_served_values_are_held_against_a_training_set_under_its_names(files: ProfileFiles) -> None:
    files.append(profile_of(numeric("weather__temp", WARM), numeric("label", WARM), subject=TRAINED, span=days(0, 365)))
    column = served(numeric("weather:temp", COLD, nulls=100), {"PRESENT": 1_000, "NOT_FOUND": 100})
    files.append(profile_of(column, subject=SERVICE, span=TODAY))
    found = run(files, MonitoringSettings(reference=ReferenceSetting(training_set="year")))
    [report] = found.reports
    assert (report.subject, report.reference, report.reference_span) == (SERVICE, TRAINED, days(0, 365))
    temp = features(found)["weather:temp"]
    assert (temp.reference_feature, temp.verdict) == ("weather__temp", Verdict.ALARM)
    assert [*features(found)] == ["weather:temp"]
    assert "unknown_key_rate" not in {each.name for each in temp.measures}


def test_a_training_set_is_compared_when_it_is_named_with_another(files: ProfileFiles) -> None:
    other = Subject(SubjectKind.TRAINING_SET, "next")
    for subject, values in ((TRAINED, WARM), (other, COLD)):
        files.append(profile_of(numeric("temp", values), subject=subject, span=days(0, 365)))
    assert run(files).refusals == ["there are no profiles yet; run 'larder monitor profile' first"]
    [refusal] = run(files, subjects=[other]).refusals
    assert "training_set 'next' would be compared with itself" in refusal
    assert run(files, subjects=[other], reference=Reference(TRAINED)).has_alarms
    assert run(files, subjects=[other], reference=Reference(other)).refusals


def test_a_profile_that_is_missing_is_refused_with_the_command_that_makes_it(files: ProfileFiles) -> None:
    assert run(files).refusals == ["there are no profiles yet; run 'larder monitor profile' first"]
    files.append(profile_of(numeric("temp", WARM), span=BEFORE))
    [refusal] = run(files).refusals
    assert refusal == (
        "feature_view 'weather' has no profile from 1970-01-29T00:00:00+00:00 to 1970-01-30T00:00:00+00:00; run "
        "'larder monitor profile --view weather --from 1970-01-29T00:00:00Z --to 1970-01-30T00:00:00Z'"
    )
    files.append(profile_of(numeric("temp", WARM), span=TODAY))
    [refusal] = run(files, reference=Reference(Subject(SubjectKind.TRAINING_SET, "my year"))).refusals
    assert refusal.endswith("run 'larder monitor profile --training-set 'my year''")
    [refusal] = run(files, subjects=[Subject(SubjectKind.PUSH_SOURCE, "x; rm")]).refusals
    assert "--push-source 'x; rm'" in refusal


def test_one_subject_that_cannot_be_compared_keeps_no_other_back(files: ProfileFiles) -> None:
    keep(files, [numeric("temp", WARM)], [numeric("temp", COLD)])
    files.append(profile_of(numeric("weather:temp", WARM), subject=SERVICE, span=BEFORE))
    found = run(files)
    assert found.has_alarms
    assert ["feature_service 'delays'" in each for each in found.refusals] == [True]


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"PAR1 no"])
def test_a_profile_file_that_is_damaged_is_named_and_nothing_is_guessed(
    repo: Path, files: ProfileFiles, damage: Callable[[bytes], bytes]
) -> None:
    files.append(profile_of(numeric("temp", WARM), span=BEFORE))
    path = files.append(profile_of(numeric("temp", COLD), span=TODAY))
    path.write_bytes(damage(path.read_bytes()))
    found = run(ProfileFiles(repo))
    assert found.reports == []
    assert "has no profile" in found.refusals[0]
    assert str(path) in found.problems[0]


def test_settings_say_what_is_compared_with_what(files: ProfileFiles) -> None:
    for day in range(29):
        files.append(profile_of(numeric("temp", COLD if day >= 25 else WARM), span=days(day, day + 1)))
    settings = MonitoringSettings(current=CurrentSetting(2), reference=ReferenceSetting(days=3))
    [report] = run(files, settings).reports
    assert (report.span, report.reference_span) == (days(27, 29), days(24, 27))
    own = replace_setting(settings, references={"weather": ReferenceSetting(start="1970-01-01", end="1970-01-11")})
    [report] = run(files, own).reports
    assert report.reference_span == days(0, 10)
    assert report.alarms
    fixed = run(files, settings, span=days(20, 25), reference=Reference(span=days(10, 21))).reports[0]
    assert (fixed.span, fixed.reference_span) == (days(20, 25), days(10, 21))
    assert any("overlap in time" in note for note in fixed.notes)


def replace_setting(settings: MonitoringSettings, **changed: object) -> MonitoringSettings:
    return MonitoringSettings(**{name: getattr(settings, name) for name in settings.__struct_fields__} | changed)


def test_settings_of_a_feature_go_before_those_of_all(files: ProfileFiles) -> None:
    keep(
        files,
        [numeric("temp", WARM), numeric("wind", WARM), numeric("note", WARM)],
        [numeric("temp", COLD), numeric("wind", COLD), numeric("note", COLD)],
    )
    off = dict.fromkeys(("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein", "mean_shift"))
    settings = MonitoringSettings(
        features={
            "weather:temp": FeatureSetting(thresholds=off),
            "weather:note": FeatureSetting(ignore=True),
            "weather:tmep": FeatureSetting(),
        },
        references={"wether": ReferenceSetting(days=3)},
    )
    found = run(files, settings)
    assert [each.feature for each in found.reports[0].alarms] == ["wind"]
    assert "note" not in features(found)
    assert "ignored by the settings: note" in found.reports[0].notes
    assert [each.partition(" applies")[0] for each in found.problems] == [
        "monitoring.yaml: features['weather:tmep']",
        "monitoring.yaml: references['wether']",
    ]


def test_notes_of_both_profiles_are_passed_on(files: ProfileFiles) -> None:
    files.append(profile_of(numeric("temp", WARM), span=days(0, 27), notes=("3 rows have no event time",)))
    files.append(profile_of(numeric("temp", WARM), span=TODAY))
    notes = run(files).reports[0].notes
    assert notes[0] == "reference: 3 rows have no event time"
    assert any(each.startswith("reference: nothing was profiled of 1970-01-28") for each in notes)


def test_text_that_differs_much_is_listed_up_to_a_bound_and_the_rest_summed(files: ProfileFiles) -> None:
    many = [f"c{number}" for number in range(100)]
    keep(files, [texts("sky", many * 20)], [texts("sky", [*many * 10, *["c99"] * 500])])
    bars = features(run(files))["sky"].bars
    assert len(bars) == 31
    assert bars[-1].is_rest
    assert [each.current for each in bars if each.label == "c99"] == [510]
    assert (sum(each.reference for each in bars), sum(each.current for each in bars)) == (2_000, 1_500)


def test_a_name_that_could_be_two_features_is_refused(files: ProfileFiles) -> None:
    files.append(profile_of(numeric("temp", WARM), subject=TRAINED, span=BEFORE))
    columns = [numeric("weather:temp", WARM), numeric("planes:temp", WARM)]
    files.append(profile_of(*columns, subject=SERVICE, span=TODAY))
    found = run(files, reference=Reference(TRAINED))
    for each in features(found).values():
        assert each.verdict is Verdict.NOT_COMPARED
        assert "could be 'planes:temp' or 'weather:temp'" in each.statement


def test_profiles_of_a_training_set_are_its_newest(files: ProfileFiles) -> None:
    older = profile_of(numeric("temp", COLD), subject=TRAINED, span=days(0, 365), computed_us=1)
    files.append(older)
    files.append(replace(older, columns={"temp": numeric("temp", WARM)}, span=Span(0, 5), computed_us=2))
    files.append(profile_of(numeric("temp", WARM), span=TODAY))
    assert not run(files, reference=Reference(TRAINED)).has_alarms
