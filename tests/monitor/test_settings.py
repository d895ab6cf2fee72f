"""`monitoring.yaml`: every key optional, every mistake named, no secret told."""

from pathlib import Path

import pytest

from store.errors import ConfigError
from store.limits import WEBHOOK_ATTEMPTS_MAX
from store.monitor import settings as module
from store.monitor.settings import THRESHOLDS, MonitoringSettings, monitoring_settings
from tests.monitor.profiles import DAY_US

SECRET = "https://hooks.example.com/T0/s3cr3t"


def settings(repo: Path, text: str) -> MonitoringSettings:
    (repo / "monitoring.yaml").write_text(text)
    return monitoring_settings(repo)


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_without_a_file_or_with_an_empty_one_all_is_as_usual(repo: Path, text: str | None) -> None:
    found = monitoring_settings(repo) if text is None else settings(repo, text)
    assert found == MonitoringSettings()
    assert (found.reference.days, found.current.days, found.false_alarm_rate, found.rows_min) == (28, 1, 0.01, 50)
    assert found.thresholds_of("weather:temp") == THRESHOLDS


def test_every_key_is_understood(repo: Path) -> None:
    found = settings(
        repo,
        """
reference: {training_set: year_2013}
references:
  weather: {days: 7}
  planes: {from: 2013-01-01, to: 2013-02-01T12:00:00+01:00}
current: {days: 2}
false_alarm_rate: 0.05
rows_min: 200
rows_alike: 3
thresholds: {psi: 0.2, chi: null}
features:
  "weather:temp": {thresholds: {psi: 0.3, mean_shift: null}}
  "weather:note": {ignore: true}
  "weather:wind": {rows_alike: 24}
webhook: {url_variable: HOOK, timeout_seconds: 5, attempts: 2}
""".replace(", chi: null", ", length_psi: 1"),
    )
    assert found.reference.training_set == "year_2013"
    span = found.references["planes"].span
    assert span is not None
    assert (span.start_us, span.end_us) == (15_706 * DAY_US, 15_737 * DAY_US + 11 * DAY_US // 24)
    temp = found.thresholds_of("weather:temp")
    assert (temp["psi"], temp["mean_shift"], temp["length_psi"], temp["null_rate"]) == (0.3, None, 1, 0.01)
    assert found.thresholds_of("weather:wind")["psi"] == 0.2
    assert (found.rows_alike_of("weather:wind"), found.rows_alike_of("weather:temp")) == (24, 3)
    assert found.ignores("weather:note")
    assert not found.ignores("weather:temp")
    assert found.webhook is not None
    assert found.webhook.address({"HOOK": SECRET}) == SECRET


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("treshold: {}", "unknown key 'treshold'; the keys there are reference, references, current"),
        ("reference: {training: x}", "unknown key 'training' in reference; the keys there are training_set, days"),
        ("features: {'a:b': {ignored: true}}", "unknown key 'ignored' in features['a:b']"),
        ("references: {a: {day: 3}}", "unknown key 'day' in references['a']"),
        ("thresholds: {pis: 0.1}", "'pis' is no measure with a threshold; they are psi, jensen_shannon"),
        ("features: {'a:b': {thresholds: {chi_squared: 1}}}", "'chi_squared' is no measure with a threshold"),
        ("thresholds: {psi: 0}", "> 0"),
        ("thresholds: {psi: much}", "Expected `float | null`, got `str`"),
        ("false_alarm_rate: 0", "> 0"),
        ("false_alarm_rate: 2", "<= 0.5"),
        ("rows_min: 3", ">= 10"),
        ("rows_alike: 0.5", ">= 1"),
        ("current: {days: 0}", ">= 1"),
        ("current: {days: 5000}", "<= 3660"),
        ("reference: {}", "give one of 'training_set', 'days', or 'from' with 'to'"),
        ("reference: {days: 3, training_set: x}", "give one of"),
        ("reference: {training_set: ''}", "'training_set' is empty"),
        ("reference: {from: 2013-01-01}", "'from' and 'to' stand together"),
        ("reference: {from: 2013-02-01, to: 2013-01-01}", "is not before 'to'"),
        ("reference: {from: soon, to: later}", "'from' 'soon' is no instant"),
        ("webhook: {}", "give one of 'url' and 'url_variable'"),
        (f"webhook: {{url: x, attempts: {WEBHOOK_ATTEMPTS_MAX + 1}}}", f"<= {WEBHOOK_ATTEMPTS_MAX}"),
        ("webhook: {url: x, timeout_seconds: 61}", "<= 60"),
        ("- a", "the file is no mapping"),
        ("current: 3", "current is no mapping; the keys there are days"),
        ("current: {days: 1}\ncurrent: {days: 2}", "the key 'current' stands twice"),
        ("a: [", "is no YAML"),
        ("? [a, b]\n: 1", "is no YAML"),
        ("!!python/object:os.system {}", "is no YAML"),
    ],
)
def test_a_mistake_is_named_with_what_is_expected(repo: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(repo, text)
    assert told in str(refused.value)
    assert "monitoring.yaml" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        f"webhook: {SECRET}",
        f"webhook: {{url: {SECRET}, atempts: 3}}",
        f"webhook: {{url: {SECRET}, url_variable: HOOK}}",
        f"webhook: {{url: [{SECRET}]}}",
        f'webhook: {{url: "{SECRET}',
        f"webhook: {{url: {SECRET}}}: x",
    ],
)
def test_no_mistake_tells_the_address_of_the_webhook(repo: Path, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(repo, text)
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None or "s3cr3t" not in str(refused.value.__cause__)


def test_a_variable_that_is_not_set_is_named(repo: Path) -> None:
    found = settings(repo, "webhook: {url_variable: HOOK}").webhook
    assert found is not None
    with pytest.raises(ConfigError, match="environment variable 'HOOK', which is not set"):
        found.address({})


def test_a_file_that_is_no_text_or_too_great_is_refused(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MONITORING_FILE_BYTES_MAX", 10_000)
    path = repo / "monitoring.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        monitoring_settings(repo)
    path.write_text("#" * 10_001)
    with pytest.raises(ConfigError, match="greater than"):
        monitoring_settings(repo)
    path.write_text("#" * 10_000)
    assert monitoring_settings(repo) == MonitoringSettings()
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        monitoring_settings(repo)


def test_settings_that_nest_without_end_are_refused(repo: Path) -> None:
    with pytest.raises(ConfigError, match="is no YAML"):
        settings(repo, "[" * 1_200)
