"""Kept reports of audits: the last whole one is told, damaged ones are named, and there are never too many."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from store.clock import to_us
from store.limits import AUDITS_KEPT
from store.monitor import audits
from store.monitor.audits import AuditFiles, KeptAudit, keep_audit, last_audit

RAN = datetime(2026, 3, 1, 12, tzinfo=UTC)


def report(number: int = 1, ran: datetime = RAN) -> dict[str, Any]:
    return {"ran_at": ran.isoformat(), "is_clean": True, "services": [], "number": number}


def test_a_repo_without_audits_has_none(repo: Path) -> None:
    assert last_audit(repo) is None
    assert AuditFiles(repo).look() == (None, [])


def test_the_last_one_written_is_told_also_where_the_clock_was_set_back(repo: Path) -> None:
    keep_audit(repo, report(1))
    keep_audit(repo, report(2, RAN.replace(year=2013)) | {"is_clean": False})
    assert last_audit(repo) == report(2, RAN.replace(year=2013)) | {"is_clean": False}
    kept = AuditFiles(repo).last()
    assert kept is not None
    assert (kept.ran_us, kept.is_clean) == (to_us(RAN.replace(year=2013)), False)


def test_the_oldest_go_where_there_are_too_many(repo: Path) -> None:
    written = [keep_audit(repo, report(number)) for number in range(AUDITS_KEPT + 3)]
    assert sorted(written[0].parent.iterdir()) == written[3:]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (json.dumps(report())[:30].encode(), "is no report of an audit; remove it"),
        (b"\xff\xfe", "is no report of an audit"),
        (b"", "is no report of an audit"),
        (b"[1, 2]", "is no report of an audit"),
        (b"[" * 100_000, "is no report of an audit"),
        (b'{"is_clean": true}', "is no report of an audit"),
        (b'{"is_clean": true, "ran_at": "yesterday"}', "is no report of an audit"),
        (b'{"is_clean": true, "ran_at": 7}', "is no report of an audit"),
        (json.dumps(report() | {"is_clean": "yes"}).encode(), "does not say whether its audit failed"),
        (b" " * 2_000 + json.dumps(report()).encode(), "bytes, expected at most 1000"),
    ],
)
def test_a_damaged_report_is_named_and_the_one_before_it_told(
    repo: Path, content: bytes, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "AUDIT_BYTES_MAX", 100_000 if content[:1] == b"[" else 1_000)
    files = AuditFiles(repo)
    files.append(report(1))
    broken = files.append(report(2))
    broken.write_bytes(content)
    for _ in range(2):  # what was read is kept, the complaint too
        kept = files.last()
        assert isinstance(kept, KeptAudit)
        assert kept.report == report(1)
        (problem,) = files.problems
        assert complaint in problem
        assert str(broken) in problem
    files.append(report(3))
    assert (files.last(), files.problems) == (KeptAudit(to_us(RAN), True, report(3)), [])


def test_a_report_that_cannot_be_written_leaves_nothing(repo: Path) -> None:
    (repo / "data" / "monitor").mkdir()
    (repo / "data" / "monitor" / "audit").write_text("in the way")
    with pytest.raises(OSError, match="audit"):
        keep_audit(repo, report())
    assert last_audit(repo) is None


def test_a_report_that_is_being_written_is_not_looked_at(repo: Path) -> None:
    path = keep_audit(repo, report(1))
    (path.parent / f".{path.name}.x.json").write_text("{")
    assert AuditFiles(repo).look() == (KeptAudit(to_us(RAN), True, report(1)), [])
