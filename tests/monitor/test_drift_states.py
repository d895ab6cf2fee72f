"""The state of a subject is that of its last report, whatever it is called and whatever lies beside it."""

import os
from pathlib import Path

import pytest

from store.limits import PROFILE_NAME_CHARACTERS_MAX
from store.monitor.drift_files import DriftFiles
from store.monitor.drift_states import DriftState, DriftStates
from store.monitor.subjects import Subject, SubjectKind
from tests.monitor.profiles import VIEW, days
from tests.monitor.test_drift_files import report


def test_a_repo_without_drift_has_no_states(repo: Path) -> None:
    assert DriftStates(repo).look() == []


def test_the_last_report_of_each_subject_counts(repo: Path) -> None:
    files, states = DriftFiles(repo), DriftStates(repo)
    may = Subject(SubjectKind.TRAINING_SET, "may/../1 %2E é")
    files.append(report(days(0, 1), 0.5))
    files.append(report(days(0, 1), 0.01, may, computed_us=9))
    assert states.look() == [DriftState(VIEW, 1, 5), DriftState(may, 0, 9)]
    files.append(report(days(1, 2), 0.01, computed_us=7))
    files.append(report(days(1, 2), 0.7, may, computed_us=11))
    assert states.look() == [DriftState(VIEW, 0, 7), DriftState(may, 1, 11)]


def test_a_name_too_long_for_a_folder_is_told_whole(repo: Path) -> None:
    long = Subject(SubjectKind.FEATURE_VIEW, "v" * (PROFILE_NAME_CHARACTERS_MAX + 50))
    path = DriftFiles(repo).append(report(days(0, 1), 0.5, long))
    assert DriftStates(repo).look() == [DriftState(long, 1, 5)]
    path.write_bytes(b"{")
    assert DriftStates(repo).look() == []


def test_a_folder_in_which_nothing_changed_is_not_read_again(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = DriftFiles(repo).append(report(days(0, 1), 0.5))
    read: list[Subject] = []
    original = DriftFiles.latest
    monkeypatch.setattr(DriftFiles, "latest", lambda files, subject: read.append(subject) or original(files, subject))
    states = DriftStates(repo)
    # Just written: what follows at once might get the same time.
    assert states.look() == states.look() == [DriftState(VIEW, 1, 5)]
    assert len(read) == 2
    os.utime(path.parent, (1, 1))
    assert states.look() == states.look() == [DriftState(VIEW, 1, 5)]
    assert len(read) == 3
    (path.parent / "other.json").write_text("{")
    path.unlink()
    assert states.look() == []
