"""Kept reports of drift: what was kept is read again, the last of each stretch; what is damaged is left out by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import OfflineStoreError
from store.kernel.drift_measures import Verdict
from store.limits import PROFILE_NAME_CHARACTERS_MAX
from store.monitor import drift_files
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_report import Bar, DriftReport, FeatureDrift, MeasureResult, Side
from store.monitor.subjects import Span, Subject, SubjectKind
from tests.monitor.profiles import VIEW, days

GOLDEN = Path(__file__).parent / "golden" / "drift_1.json"


def measure(name: str, value: float | None, verdict: Verdict = Verdict.STABLE) -> MeasureResult:
    return MeasureResult(name, verdict, value, 0.1, 0.01, 0.5, 1.0, 19, 2_000, 100, None, None, None, "")


def report(span: Span, value: float = 0.05, subject: Subject = VIEW, computed_us: int = 5) -> DriftReport:
    verdict = Verdict.ALARM if value >= 0.1 else Verdict.STABLE
    feature = FeatureDrift(
        "temp",
        "temp",
        "Float64",
        "number",
        verdict,
        "as <b>in</b> the 'reference' é",
        (measure("psi", value, verdict), measure("wasserstein", None, Verdict.NOT_COMPARED)),
        Side(2_000, 3, 1.5, (1.0, 2.0), 1.4, 0.3, -5.0, 1e300),
        Side(100, 0),
        (Bar("", None, 1.5, 3, 4), Bar("", 1.5, None, 5, 6)),
    )
    return DriftReport(subject, span, VIEW, days(-28, 0), computed_us, 100, 2_000, 0.01, 50, 7, (feature,), ("a note",))


@pytest.fixture
def files(repo: Path) -> DriftFiles:
    return DriftFiles(repo)


def folder_of(repo: Path) -> Path:
    return repo / "data" / "monitor" / "drift" / "feature_view" / "weather"


def test_what_was_kept_is_read_again(files: DriftFiles) -> None:
    files.append(report(days(0, 1)))
    assert files.latest(VIEW) == report(days(0, 1))
    assert files.problems == []


def test_nothing_kept_is_nothing(files: DriftFiles) -> None:
    assert files.latest(VIEW) is None
    assert files.history(VIEW, "temp") == []


def test_the_latest_is_that_of_the_latest_days_not_the_last_computed(files: DriftFiles) -> None:
    files.append(report(days(3, 4), computed_us=1))
    files.append(report(days(0, 1), computed_us=9))
    assert files.latest(VIEW) == report(days(3, 4), computed_us=1)


def test_drift_over_time_is_in_order_of_the_days_each_once(files: DriftFiles) -> None:
    files.append(report(days(1, 2), 0.3))
    files.append(report(days(-2, -1), 0.02))
    files.append(report(days(0, 1), 0.9))
    files.append(report(days(0, 1), 0.04))
    points = files.history(VIEW, "temp")
    assert [each.span for each in points] == [days(-2, -1), days(0, 1), days(1, 2)]
    assert [dict(each.measures) for each in points] == [{"psi": 0.02}, {"psi": 0.04}, {"psi": 0.3}]
    assert [each.verdict for each in points] == [Verdict.STABLE, Verdict.STABLE, Verdict.ALARM]
    assert points[0].thresholds["psi"] == 0.1
    assert files.history(VIEW, "humid") == []


def test_only_the_latest_days_are_read_up_to_a_bound(files: DriftFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift_files, "DRIFT_FILES_MAX", 2)
    for day in range(3):
        files.append(report(days(day, day + 1)))
    assert [each.span for each in files.history(VIEW, "temp")] == [days(1, 2), days(2, 3)]


@pytest.mark.parametrize("name", ["a/b", "..", "", "é" * 300, "x" * (PROFILE_NAME_CHARACTERS_MAX + 1)])
def test_any_name_has_a_folder_of_its_own(repo: Path, files: DriftFiles, name: str) -> None:
    subject = Subject(SubjectKind.PUSH_SOURCE, name)
    path = files.append(report(days(0, 1), subject=subject))
    assert path.parent.parent == repo / "data" / "monitor" / "drift" / "push_source"
    assert files.latest(subject) == report(days(0, 1), subject=subject)
    assert files.latest(Subject(SubjectKind.PUSH_SOURCE, f"{name}x")) is None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda content: content[: len(content) // 2], "delete it"),
        (lambda content: b"", "delete it"),
        (lambda content: b"\xff\x00", "delete it"),
        (lambda content: b"[]", "delete it"),
        (lambda content: b'{"format": 1}', "delete it"),
        (lambda content: content.replace(b'"verdict":"stable"', b'"verdict":"fine"'), "delete it"),
        (lambda content: content.replace(b'"weather"', b'"planes"'), "or of other days than its name says"),
        (lambda content: content.replace(b'"format":1', b'"format":2'), "read it with a later version"),
    ],
)
def test_a_damaged_file_is_named_and_the_one_before_counts(
    repo: Path, files: DriftFiles, damage: Callable[[bytes], bytes], told: str
) -> None:
    files.append(report(days(0, 1), 0.02))
    path = files.append(report(days(0, 1), 0.04))
    content = path.read_bytes()
    assert damage(content) != content
    path.write_bytes(damage(content))
    assert files.latest(VIEW) == report(days(0, 1), 0.02)
    assert [dict(each.measures) for each in files.history(VIEW, "temp")] == [{"psi": 0.02}]
    [problem] = files.problems
    assert str(path) in problem
    assert told in problem


def test_a_foreign_file_is_named_and_scratch_is_not(repo: Path, files: DriftFiles) -> None:
    files.append(report(days(0, 1)))
    (folder_of(repo) / "notes.txt").write_text("x")
    (folder_of(repo) / ".half.json").write_text("x")
    assert files.latest(VIEW) == report(days(0, 1))
    assert files.problems == [
        f"{str(folder_of(repo) / 'notes.txt')!r} is no drift report of Larder's and was left out; take it away"
    ]


def test_a_file_beyond_the_bound_is_left_out(repo: Path, files: DriftFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    path = files.append(report(days(0, 1)))
    monkeypatch.setattr(drift_files, "DRIFT_FILE_BYTES_MAX", path.stat().st_size)
    assert files.latest(VIEW) is not None
    monkeypatch.setattr(drift_files, "DRIFT_FILE_BYTES_MAX", path.stat().st_size - 1)
    others = DriftFiles(repo)
    assert others.latest(VIEW) is None
    assert "greater than" in others.problems[0]


def test_what_was_read_is_kept_within_its_bounds_and_new_runs_are_seen(
    files: DriftFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_files, "DRIFT_FEATURES_KEPT_MAX", 2)
    monkeypatch.setattr(drift_files, "DRIFT_POINTS_KEPT_MAX", 2)
    (feature, *_) = report(days(0, 1)).features
    for last in range(1, 7):
        files.append(report(days(last - 1, last)))
        for _ in range(2):
            assert files.latest(VIEW) == report(days(last - 1, last))
            assert [each.span for each in files.history(VIEW, feature.feature)] == [
                days(day - 1, day) for day in range(1, last + 1)
            ]


def test_a_damaged_file_that_was_taken_away_is_a_problem_no_more(files: DriftFiles) -> None:
    path = files.append(report(days(0, 1)))
    path.write_bytes(path.read_bytes()[:20])
    assert files.latest(VIEW) is None
    assert len(files.problems) == 1
    path.unlink()
    assert files.problems == []


def test_a_folder_that_cannot_be_written_is_said(repo: Path, files: DriftFiles) -> None:
    (repo / "data" / "monitor").write_text("in the way")
    with pytest.raises(OfflineStoreError, match="the drift report of feature_view 'weather' cannot be written"):
        files.append(report(days(0, 1)))


def test_bytes_of_a_kept_report_stay_as_they_are(files: DriftFiles) -> None:
    path = files.append(report(days(0, 1), 0.3))
    assert json.loads(path.read_bytes()) == json.loads(GOLDEN.read_bytes())
    path.write_bytes(GOLDEN.read_bytes())
    assert files.latest(VIEW) == report(days(0, 1), 0.3)
