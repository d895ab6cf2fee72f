"""What Prometheus and Grafana are given is right: by Prometheus' own tools, and by a real one on a real server."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.redis_servers import free_port, poll_until
from tests.server.conftest import TOKENS
from tests.server.live import LiveServer
from tests.test_container import program, run

SUFFIXES = ("_total", "_bucket", "_count", "_sum")


@pytest.fixture(scope="module")
def folder(project_root: Path) -> Path:
    return project_root / "tools" / "monitoring"


@pytest.fixture(scope="module")
def dashboard(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "grafana" / "larder.json").read_text())


@pytest.fixture(scope="module")
def rules(folder: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries_of(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


# --- by Prometheus' own tools -------------------------------------------------------------------


def installed(folder: Path, target: Path, server_at: str = "server:6566") -> Path:
    """Copies the settings as the compose file installs them, below another folder; returns the configuration."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "prometheus_token").write_text(TOKENS["read"])
    shutil.copy(folder / "alerts.yml", target)
    text = (folder / "prometheus.yml").read_text()
    for path, file in (("/etc/prometheus/alerts.yml", "alerts.yml"), ("/run/secrets/prometheus_token",) * 2):
        assert text.count(path) == 1
        text = text.replace(path, str(target / Path(file).name))
    (target / "prometheus.yml").write_text(text.replace("server:6566", server_at))
    return target / "prometheus.yml"


def test_prometheus_accepts_its_settings_and_rules(folder: Path, tmp_path: Path) -> None:
    checked = run(
        program("promtool"), "check", "config", "--lint=all", "--lint-fatal", str(installed(folder, tmp_path))
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "rules found" in checked.stdout


def test_alerts_fire_on_what_they_are_for(folder: Path) -> None:
    tried = run(program("promtool"), "test", "rules", "alerts_test.yml", cwd=folder)
    assert tried.returncode == 0, tried.stdout + tried.stderr


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("expression", ["vector(0) > 1", "vector(1)"])
def test_the_trial_notices_every_alert_that_never_or_always_fires(
    folder: Path, rules: list[dict[str, Any]], tmp_path: Path, expression: str, share: int
) -> None:
    shutil.copy(folder / "alerts_test.yml", tmp_path)
    unnoticed = []
    for rule in rules[::share]:
        changed = [{**each, "expr": expression} if each is rule else each for each in rules]
        (tmp_path / "alerts.yml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": changed}]}))
        if run(program("promtool"), "test", "rules", "alerts_test.yml", cwd=tmp_path).returncode == 0:
            unnoticed.append(rule["alert"])
    assert unnoticed == []


def test_every_alert_says_what_is_wrong_and_what_to_do(rules: list[dict[str, Any]]) -> None:
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    for rule in rules:
        assert rule["alert"].startswith("Larder")
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert 20 < len(rule["annotations"]["summary"]) < 120
        # A sentence that says what it means, and another one of what to do.
        assert rule["annotations"]["description"].count(". ") >= 1, rule["alert"]
        assert rule["annotations"]["description"].endswith(".")


# --- against a real server ----------------------------------------------------------------------


def test_every_metric_that_is_asked_for_is_told_by_a_server(
    server: LiveServer, dashboard: dict[str, Any], rules: list[dict[str, Any]]
) -> None:
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics").text)}
    told = set(families) | {f"{name}{suffix}" for name in families for suffix in SUFFIXES}
    variables = [json.dumps(variable["query"]) for variable in dashboard["templating"]["list"]]
    for query in [*queries_of(dashboard), *variables, *(rule["expr"] for rule in rules)]:
        asked = set(re.findall(r"\blarder_[a-z0-9_]+", query))
        assert asked or "up{" in query, query
        assert asked <= told, query


def test_the_servers_metrics_pass_prometheus_own_rules(server: LiveServer) -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=server.get("/metrics").text,
        capture_output=True,
        text=True,
        check=False,
    )
    # The client adds the instants at which its counters were made as gauges.
    complaints = [line for line in (checked.stdout + checked.stderr).splitlines() if "_created" not in line]
    assert complaints == []


@pytest.fixture(scope="module")
def prometheus(folder: Path, guarded: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real Prometheus that scrapes a server with tokens, by the settings of the compose file but for addresses."""
    there = tmp_path_factory.mktemp("prometheus")
    settings = installed(folder, there, guarded.url.removeprefix("http://"))
    settings.write_text(re.sub(r"(_interval|_timeout): 1[05]s", r"\1: 1s", settings.read_text()))
    url = f"http://127.0.0.1:{free_port()}"
    command = [program("prometheus"), f"--config.file={settings}", f"--storage.tsdb.path={there / 'data'}"]
    with (there / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address={url.removeprefix('http://')}"], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:

            def is_up() -> bool:
                assert process.poll() is None, (there / "log").read_text()
                try:
                    return bool(values(client, 'up{job="larder-server"} == 1'))
                except httpx.TransportError:
                    return False

            poll_until(is_up, what="Prometheus has scraped the server with its token")
            yield client
    finally:
        process.terminate()
        process.wait()


def values(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    said = client.get("/api/v1/query", params={"query": query})
    if said.status_code == 503:  # it reads its storage
        return []
    answer = said.json()
    assert answer["status"] == "success", (query, answer)
    return answer["data"]["result"]


def test_a_real_prometheus_answers_what_the_dashboard_asks(
    prometheus: httpx.Client, guarded: LiveServer, dashboard: dict[str, Any]
) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['read']}"}
    body = {"features": ["driver_stats:rate"], "entities": {"driver_id": [1, 99]}}
    asked = guarded.post("/get-online-features", body, headers=headers)
    assert asked.status_code == 200
    for query in queries_of(dashboard):
        values(prometheus, query.replace("$__rate_interval", "1m").replace("$view", ".*"))
    poll_until(lambda: values(prometheus, 'larder_lookup_rows_total{view="driver_stats"}'), what="lookups are counted")
    for name in ("larder_ready", "larder_view_ttl_seconds", "larder_view_online_freshness_seconds"):
        poll_until(lambda name=name: values(prometheus, name), what=name)


def test_a_real_prometheus_has_all_rules_in_force(prometheus: httpx.Client, rules: list[dict[str, Any]]) -> None:
    def states() -> dict[str, str]:
        groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    poll_until(lambda: states() == {rule["alert"]: "ok" for rule in rules}, what="every rule was evaluated")


# --- the dashboard ------------------------------------------------------------------------------


def test_panels_are_whole_and_do_not_overlap(folder: Path, dashboard: dict[str, Any]) -> None:
    (source,) = yaml.safe_load((folder / "grafana" / "datasource.yml").read_text())["datasources"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert is_beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    for panel in panels:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(each == {"type": source["type"], "uid": source["uid"]} for each in sources)
    assert all(each["datasource"]["uid"] == source["uid"] for each in dashboard["templating"]["list"])


def test_counters_are_asked_for_their_rate_and_gauges_of_all_workers_once(dashboard: dict[str, Any]) -> None:
    for query in queries_of(dashboard):
        for counter in re.findall(r"(\w+\()?larder_\w+_(?:total|bucket)\b", query):
            assert counter in {"rate(", "increase("}, query


def test_grafana_finds_what_the_compose_file_mounts(folder: Path, project_root: Path) -> None:
    compose = yaml.safe_load((project_root / "docker-compose.yml").read_text())
    grafana, prometheus = compose["services"]["grafana"], compose["services"]["prometheus"]
    mounted = {config["target"]: compose["configs"][config["source"]]["file"] for config in grafana["configs"]}
    assert all((project_root / file).is_file() for file in mounted.values())
    (provider,) = yaml.safe_load((folder / "grafana" / "dashboards.yml").read_text())["providers"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in mounted
    assert str(Path(home).parent) == provider["options"]["path"]
    (source,) = yaml.safe_load((folder / "grafana" / "datasource.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    settings = {config["target"] for config in prometheus["configs"]}
    text = (folder / "prometheus.yml").read_text()
    assert settings == {"/etc/prometheus/prometheus.yml", *yaml.safe_load(text)["rule_files"]}
    assert f"--config.file={min(settings, key=lambda name: 'alerts' in name)}" in prometheus["command"]
    (server, worker) = yaml.safe_load(text)["scrape_configs"]
    assert server["static_configs"] == [{"targets": ["server:6566"]}]
    assert server["authorization"]["credentials_file"] == f"/run/secrets/{prometheus['secrets'][0]}"
    port = compose["services"]["worker"]["command"][
        compose["services"]["worker"]["command"].index("--metrics-port") + 1
    ]
    assert (worker["dns_sd_configs"][0]["names"], str(worker["dns_sd_configs"][0]["port"])) == (["worker"], port)
