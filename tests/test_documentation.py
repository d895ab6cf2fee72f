"""What the documents promise is there, and what is there stands in the documents."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import store.errors
from cli.main import app
from server.app import create_app
from server.metrics import Metrics
from server.settings import ServerSettings
from store.engine import DuckDBComputeEngineConfig
from store.kernel.drift_measures import Measure
from store.kernel.windows import FUNCTIONS, Function
from store.monitor.drift_report import Bar, FeatureDrift, MeasureResult, Side
from store.monitor.settings import THRESHOLDS, MonitoringSettings, WebhookSetting, monitoring_settings
from store.offline import DuckDBOfflineStoreConfig
from store.online import RedisOnlineStoreConfig
from store.service import StoreService
from store.windows_from_feast import windows_of
from tests.stores import yaml_of


@pytest.fixture(scope="module")
def readme() -> str:
    return (Path(__file__).parent.parent / "README.md").read_text()


def sources(root: Path, *folders: str) -> str:
    return "\n".join(path.read_text() for folder in folders for path in sorted((root / folder).rglob("*.py")))


@pytest.mark.parametrize(
    ("section", "config"),
    [
        ("offline_store", DuckDBOfflineStoreConfig),
        ("online_store", RedisOnlineStoreConfig),
        ("batch_engine", DuckDBComputeEngineConfig),
    ],
)
def test_every_setting_is_documented(readme: str, section: str, config: type) -> None:
    for name in config.model_fields:  # type: ignore[attr-defined]
        assert f"`{section}.{name}`" in readme


def test_every_variable_is_documented_and_no_other(readme: str, project_root: Path) -> None:
    code = sources(project_root, "store", "server", "cli")
    used = set(re.findall(r'"(LARDER_[A-Z_]+|REDIS_URL|PROMETHEUS_MULTIPROC_DIR)"', code))
    table = readme[readme.index("In the environment:") : readme.index("Commands, each")]
    assert used == set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE))


def test_every_error_class_is_documented(readme: str) -> None:
    classes = [
        name for name, value in inspect.getmembers(store.errors, inspect.isclass) if value.__module__ == "store.errors"
    ]
    missing = [name for name in classes if f"`{name}`" not in readme]
    assert missing == []


def test_every_path_is_documented(readme: str, repo: Path) -> None:
    (repo / "feature_store.yaml").write_text(yaml_of("redis://127.0.0.1:1"))
    application = create_app(ServerSettings(repo_path=repo), lambda: StoreService.open(repo))
    for path, methods in application.api.openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in readme, path


def test_every_metric_is_documented(readme: str) -> None:
    metrics = Metrics()
    for family in (*metrics.registry.collect(), *metrics.stream.collect(), *metrics.monitor.collect()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in readme


def test_every_command_and_option_is_documented(readme: str) -> None:
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"`larder {name}`" in readme
        row = next(line for line in readme.splitlines() if line.startswith(f"| `larder {name}`"))
        of_parts = [part for each in getattr(command, "commands", {}).values() for part in each.params]
        for parameter in (each for each in (*command.params, *of_parts) if each.param_type_name == "option"):
            option = next(text for text in parameter.opts if text.startswith("--"))
            assert option in row or option == "--repo", f"larder {name} {option}"


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_files_that_are_named_exist(project_root: Path, document: str) -> None:
    text = (project_root / document).read_text()
    named = set(re.findall(r"`((?:store|server|cli|demo|tests|feature_repo)/[\w./]*)`", text))
    assert named
    assert [name for name in named if not (project_root / name).exists()] == []


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "docs/windows.md", "docs/drift.md"])
def test_links_lead_somewhere(project_root: Path, document: str) -> None:
    text = (project_root / document).read_text()
    named = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text)
    assert [name for name in named if not (project_root / document).parent.joinpath(name).exists()] == []


def test_example_of_windows_can_be_declared_and_all_functions_are_told(project_root: Path) -> None:
    text = (project_root / "docs" / "windows.md").read_text()
    declared: dict[str, Any] = {}
    exec(text.partition("```python\n")[2].partition("```")[0], declared)
    found = windows_of(declared["route_arrivals"])
    assert [(each.name, each.function.name) for each in found] == [("last_delays", "last"), ("mean_delay_30d", "mean")]
    table = text[text.index("| function |") : text.index("All depend on")]
    told = {function for name in re.findall(r"`([a-z_0-9]+)`", table) if (function := Function.parse(name))}
    names = {name.removesuffix("_N").removesuffix("_P") for name in FUNCTIONS}
    assert {function.name for function in told} == names


def test_names_in_architecture_exist(project_root: Path) -> None:
    text = (project_root / "ARCHITECTURE.md").read_text()
    code = sources(project_root, "store", "server", "feature_repo", "tools") + " feature_repo"
    for name in re.findall(r"`(?:\w+\.)?([A-Za-z_]{5,})`", text):
        if "_" in name or name != name.lower():
            assert name in code, name


def test_every_setting_and_measure_of_drift_is_told(project_root: Path, tmp_path: Path) -> None:
    text = (project_root / "docs" / "drift.md").read_text()
    for name in (*MonitoringSettings.__struct_fields__, *WebhookSetting.__struct_fields__, *Measure):
        assert f"`{name}`" in text, name
    for measure, threshold in THRESHOLDS.items():
        row = next(line for line in text.splitlines() if line.startswith("|") and f"`{measure}`" in line)
        assert row.endswith(f"| {threshold} |")
    for fields in (FeatureDrift, MeasureResult, Side, Bar):
        for field in dataclasses.fields(fields):
            assert f"`{field.name.replace('type_name', 'type')}`" in text, field.name
    # The examples are settings that are understood.
    for document in ("README.md", "docs/drift.md"):
        found = (project_root / document).read_text()
        example = next(each for each in re.findall(r"```yaml\n(.*?)```", found, re.DOTALL) if "thresholds:" in each)
        (tmp_path / "monitoring.yaml").write_text(example)
        assert monitoring_settings(tmp_path).webhook is not None
