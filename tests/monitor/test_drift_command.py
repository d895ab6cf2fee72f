"""`larder monitor drift`: exit status, JSON, the table for people, and what is kept and told."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from store.monitor.drift_files import DriftFiles
from store.monitor.profile_files import ProfileFiles
from store.monitor.subjects import Subject, SubjectKind
from tests.audit.logged_shop import LoggedShop
from tests.monitor.hooks import hook, status
from tests.monitor.profiles import VIEW, days
from tests.monitor.samples import numeric, profile_of, texts
from tests.monitor.test_drift import BEFORE, COLD, TODAY, WARM
from tests.stores import NOW, user_rows

DAYS = ["--from", "1970-01-29", "--to", "1970-01-30", "--reference-from", "1970-01-01", "--reference-to", "1970-01-29"]


@pytest.fixture
def repo(repo: Path) -> Path:
    (repo / "feature_store.yaml").write_text("project: shop\n")
    return repo


def drift(repo: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["monitor", "drift", "--repo", str(repo), *arguments], catch_exceptions=False)


def keep(repo: Path, values: list[float]) -> None:
    files = ProfileFiles(repo)
    files.append(profile_of(numeric("temp", WARM), texts("sky", ["[red]a", "b"] * 400), span=BEFORE))
    files.append(profile_of(numeric("temp", values), texts("sky", ["[red]a", "b"] * 400), span=TODAY))


def test_an_alarm_is_status_1_shown_first_and_kept(repo: Path) -> None:
    keep(repo, COLD)
    answer = drift(repo, *DAYS)
    assert answer.exit_code == 1
    lines = answer.stdout.splitlines()
    assert lines[0] == (
        "feature_view 'weather', 1970-01-29 to 1970-01-30, 1,000 rows, against its own rows of 1970-01-01 to "
        "1970-01-29, 2,000 rows"
    )
    assert lines[2].split()[:2] == ["ALARM", "temp"]
    assert "the middle" in answer.stdout
    assert lines[-1] == "1 of 2 features have drifted"
    kept = DriftFiles(repo).latest(VIEW)
    assert kept is not None
    assert [each.feature for each in kept.alarms] == ["temp"]


def test_nothing_that_drifts_is_status_0(repo: Path) -> None:
    keep(repo, WARM[::2])
    answer = drift(repo, *DAYS)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[-1] == "nothing has drifted"


def test_json_has_all_for_machines(repo: Path) -> None:
    keep(repo, COLD)
    answer = drift(repo, "--json", "--view", "weather", *DAYS)
    told: dict[str, Any] = json.loads(answer.stdout)
    assert answer.exit_code == 1
    assert (told["has_alarms"], told["refusals"], told["problems"]) == (True, [], [])
    [report] = told["reports"]
    assert (report["subject_kind"], report["subject"], report["alarms"]) == ("feature_view", "weather", ["temp"])
    assert (report["from"], report["reference_to"]) == ("1970-01-29T00:00:00+00:00", "1970-01-29T00:00:00+00:00")
    temp = report["features"][0]
    assert (temp["feature"], temp["type"], temp["verdict"]) == ("temp", "Float64", "alarm")
    psi = next(each for each in temp["measures"] if each["name"] == "psi")
    assert psi["value"] > psi["threshold"] == 0.1
    assert psi["p_run"] <= report["false_alarm_rate"] == 0.01
    assert sum(bar["current"] for bar in temp["bars"]) == len(COLD)


def test_without_profiles_it_cannot_be_run(repo: Path) -> None:
    answer = drift(repo)
    assert answer.exit_code == 2
    assert answer.stderr == "larder: there are no profiles yet; run 'larder monitor profile' first\n"


def test_an_alarm_goes_before_what_could_not_be_run(repo: Path) -> None:
    keep(repo, COLD)
    answer = drift(repo, "--view", "weather", "--view", "planes", *DAYS)
    assert answer.exit_code == 1
    assert "larder: feature_view 'planes' has no profile" in answer.stderr
    keep(repo, WARM)
    assert drift(repo, "--view", "weather", "--view", "planes", *DAYS).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "1970-01-29"], "--from stands without --to"),
        (["--reference-to", "1970-01-29"], "--reference-to stands without --reference-from"),
        (["--from", "soon", "--to", "later"], "--from 'soon' is no instant"),
        (["--from", "1970-01-02", "--to", "1970-01-01"], "--from '1970-01-02' is not before --to '1970-01-01'"),
        (
            ["--reference-training-set", "a", "--reference-service", "b"],
            "--reference-training-set stands alone",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(repo: Path, arguments: list[str], told: str) -> None:
    answer = drift(repo, *arguments)
    assert answer.exit_code == 2
    assert told in answer.stderr


def test_another_reference_can_be_named(repo: Path) -> None:
    trained, service = Subject(SubjectKind.TRAINING_SET, "year"), Subject(SubjectKind.FEATURE_SERVICE, "delays")
    files = ProfileFiles(repo)
    files.append(profile_of(numeric("weather__temp", WARM), subject=trained, span=days(0, 9)))
    files.append(profile_of(numeric("weather:temp", COLD), subject=service, span=TODAY))
    span = DAYS[:4]
    assert drift(repo, "--service", "delays", "--reference-training-set", "year", *span).exit_code == 1
    assert drift(repo, "--training-set", "year", "--reference-service", "delays").exit_code == 1
    assert drift(repo, "--training-set", "year").exit_code == 2


def test_a_mistake_in_the_settings_or_the_folder_is_status_2(repo: Path, tmp_path: Path) -> None:
    (repo / "monitoring.yaml").write_text("treshold: 1")
    answer = drift(repo)
    assert answer.exit_code == 2
    assert "unknown key 'treshold'" in answer.stderr
    answer = drift(tmp_path)
    assert answer.exit_code == 2
    assert "feature_store.yaml is missing" in answer.stderr


def test_alarms_are_told_to_the_webhook_once_a_run(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(repo, COLD)
    (repo / "monitoring.yaml").write_text("webhook: {url_variable: HOOK, timeout_seconds: 20, attempts: 1}")
    with hook(status(200)) as running:
        monkeypatch.setenv("HOOK", running.url)
        answer = drift(repo, *DAYS)
        assert (answer.exit_code, answer.stderr) == (1, "")
        assert drift(repo, "--no-webhook", *DAYS).exit_code == 1
        keep(repo, WARM)
        assert drift(repo, *DAYS).exit_code == 0
    [(_, _, body)] = running.posted
    assert body["text"].startswith("1 feature has drifted\nweather: temp: the middle value is")


def test_a_webhook_that_fails_is_told_and_changes_no_status(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(repo, COLD)
    (repo / "monitoring.yaml").write_text("webhook: {url_variable: HOOK, attempts: 1}")
    answer = drift(repo, *DAYS)
    assert answer.exit_code == 1
    assert "environment variable 'HOOK', which is not set" in answer.stderr
    with hook(status(500)) as running:
        monkeypatch.setenv("HOOK", running.url)
        answer = drift(repo, "--json", *DAYS)
    assert answer.exit_code == 1
    assert answer.stderr == "larder: the webhook did not take the alarms: it answered 500\n"
    assert json.loads(answer.stdout)["has_alarms"]
    assert "s3cr3t" not in answer.output


def test_what_cannot_be_kept_is_still_told(repo: Path) -> None:
    keep(repo, COLD)
    (repo / "data" / "monitor" / "drift").write_text("in the way")
    answer = drift(repo, *DAYS)
    assert answer.exit_code == 1
    assert "cannot be written" in answer.stderr
    keep(repo, WARM)
    assert drift(repo, *DAYS).exit_code == 2


def test_names_and_categories_are_shown_as_they_are(repo: Path) -> None:
    files = ProfileFiles(repo)
    files.append(profile_of(texts("[bold]sky", ["[red]a"] * 400), span=BEFORE))
    files.append(profile_of(texts("[bold]sky", ["[red]b\x1b[2J"] * 400), span=TODAY))
    answer = drift(repo, *DAYS)
    assert answer.exit_code == 1
    assert "[bold]sky" in "".join(answer.stdout.split())
    assert "\x1b" not in answer.stdout


@pytest.mark.long
def test_rows_that_have_moved_alarm_from_source_to_status(shop: LoggedShop) -> None:
    before, now = user_rows(200, NOW - timedelta(days=2)), user_rows(200, NOW - timedelta(days=1))
    now["spent"] += 300.0
    shop.write_source(pd.concat([before, now]))
    arguments = ["--repo", str(shop.repo), "--view", "users"]
    assert CliRunner().invoke(app, ["monitor", "profile", *arguments], catch_exceptions=False).exit_code == 0
    answer = drift(shop.repo, "--view", "users", "--json")
    assert answer.exit_code == 1
    [report] = json.loads(answer.stdout)["reports"]
    assert (report["from"], report["rows"], report["reference_rows"]) == ("2026-02-28T00:00:00+00:00", 200, 200)
    assert report["alarms"] == ["spent"]
    verdicts = {each["feature"]: each["verdict"] for each in report["features"]}
    assert set(verdicts) == {"spent", "orders", "name", "last"}
