"""`larder monitor report`: one page that stands for itself, its status, and JSON for machines."""

import base64
import hashlib
import json
import re
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from store.monitor.audits import keep_audit
from store.monitor.profile_files import ProfileFiles
from store.monitor.subjects import Subject, SubjectKind
from tests.audit.logged_shop import LoggedShop
from tests.monitor.samples import numeric, profile_of, texts
from tests.monitor.test_drift import BEFORE, COLD, TODAY, WARM
from tests.monitor.test_drift_command import DAYS

HOSTILE = '<script>alert("x")</script>'
OF_VIEW = Subject(SubjectKind.FEATURE_VIEW, HOSTILE)


def monitor(shop: LoggedShop, *arguments: str) -> Result:
    command = ["monitor", arguments[0], "--repo", str(shop.repo), *arguments[1:]]
    return CliRunner().invoke(app, command, catch_exceptions=False)


def keep(shop: LoggedShop, values: list[float]) -> None:
    files = ProfileFiles(shop.repo)
    for span, column in ((BEFORE, WARM), (TODAY, values)):
        sky = texts("sky", [HOSTILE, "clear"] * 400)
        files.append(profile_of(numeric(HOSTILE, column), sky, span=span, subject=OF_VIEW))


def report_of(shop: LoggedShop) -> str:
    return (shop.repo / "data" / "monitor" / "report.html").read_text()


def test_what_drifted_is_shown_in_a_page_that_stands_for_itself(shop: LoggedShop) -> None:
    keep(shop, COLD)
    monitor(shop, "drift", *DAYS)
    answer = monitor(shop, "report")
    assert answer.exit_code == 1, answer.output
    html = report_of(shop)
    assert "1 of 2 features have drifted" in html
    assert "The middle" in html
    assert html.count("<svg") >= 3, "a picture of what drifted, and one of each distribution"
    assert not re.search(r"(?:src|href|action)\s*=|url\(|@import", html)


def test_names_are_texts_and_the_page_runs_nothing(shop: LoggedShop) -> None:
    keep(shop, COLD)
    monitor(shop, "drift", *DAYS)
    monitor(shop, "report")
    html = report_of(shop)
    assert "<script" not in html.lower()
    assert "&lt;script&gt;" in html
    style = re.search(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html


def test_where_nothing_was_measured_it_says_what_to_run(shop: LoggedShop) -> None:
    answer = monitor(shop, "report")
    assert answer.exit_code == 0, answer.output
    html = report_of(shop)
    for told in ("Drift has not been measured", "larder monitor profile", "Nothing was audited"):
        assert told in html


def test_an_audit_that_failed_is_status_1(shop: LoggedShop) -> None:
    keep_audit(shop.repo, {"ran_at": "2013-12-05T00:00:00+00:00", "is_clean": False, "services": []})
    answer = monitor(shop, "report")
    assert answer.exit_code == 1
    assert "FAILED" in answer.stdout


def test_machines_get_json(shop: LoggedShop, tmp_path: Path) -> None:
    keep(shop, COLD)
    monitor(shop, "drift", *DAYS)
    answer = monitor(shop, "report", "--json", "--output", str(tmp_path / "out.html"))
    told = json.loads(answer.stdout)
    assert told["has_alarms"] is True
    assert [each["alarms"] for each in told["drift"]] == [[HOSTILE]]
    assert {each["view"] for each in told["freshness"]} == {"users"}
    assert told["audit"] is None
    assert (tmp_path / "out.html").read_text().startswith("<!doctype html>")


def test_a_damaged_profile_is_named_and_the_rest_is_told(shop: LoggedShop) -> None:
    keep(shop, COLD)
    monitor(shop, "drift", *DAYS)
    newest = max((shop.repo / "data" / "monitor" / "profiles").rglob("*.parquet"))
    newest.write_bytes(newest.read_bytes()[:100])
    answer = monitor(shop, "report")
    assert answer.exit_code == 1
    assert newest.name in report_of(shop)
    assert "1 of 2 features have drifted" in report_of(shop)


def test_a_place_that_cannot_be_written_is_refused_by_name(shop: LoggedShop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = monitor(shop, "report", "--output", str(tmp_path / "file" / "report.html"))
    assert answer.exit_code == 2
    assert "file/report.html" in answer.stderr
    assert "--output" in answer.stderr


def test_a_repo_that_is_none_is_refused(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["monitor", "report", "--repo", str(tmp_path)])
    assert answer.exit_code == 2
    assert "feature_store.yaml" in answer.stderr


def test_where_nothing_drifted_it_is_status_0(shop: LoggedShop) -> None:
    keep(shop, WARM[::2])
    monitor(shop, "drift", *DAYS)
    assert monitor(shop, "report").exit_code == 0
    assert "None of 2 features has drifted" in report_of(shop)
