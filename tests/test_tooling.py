"""The tools around the code keep their promises: one lock, make targets, setup, CI, limits with reasons."""

import ast
import fcntl
import importlib.util
import io
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.redis_servers import poll_until

TARGETS = ("demo", "test", "test-all", "serve", "check")
# Where this project was written or is checked: never part of it. Split up, so that this line is no finding itself.
PATHS_OF_MACHINES = ("/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/Use" + "rs/", "/opt/py" + "pi", ".py" + "env/")


@pytest.fixture(scope="module")
def project(project_root: Path) -> dict[str, Any]:
    return tomllib.loads((project_root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock(project_root: Path) -> str:
    return (project_root / "requirements.lock").read_text()


@pytest.fixture
def setup_module(project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The setup script as a module whose project folder is a temporary one."""
    spec = importlib.util.spec_from_file_location("setup_environment", project_root / "tools" / "setup_environment.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "setup_environment", module)
    spec.loader.exec_module(module)
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        (folder / name).write_bytes((project_root / name).read_bytes())
    venv = folder / ".venv"
    paths = {"ROOT": folder, "VENV": venv, "LOCK": folder / "requirements.lock", "PYTHON": venv / "bin" / "python"}
    paths |= {"STAMP": venv / module.STAMP.name, "UNFINISHED": venv / module.UNFINISHED.name}
    for name, path in paths.items():
        monkeypatch.setattr(module, name, path)
    return module


def tracked_files(project_root: Path) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=project_root, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := project_root / name).is_file()]


# --- the lock -----------------------------------------------------------------------------------


def test_lock_names_no_host_and_no_place(lock: str) -> None:
    assert "://" not in lock
    options = {line for line in lock.splitlines() if line.lstrip().startswith("-")}
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line) for line in options)


def test_every_package_of_the_lock_has_one_version_and_hashes(lock: str, setup_module: ModuleType) -> None:
    blocks = setup_module.packages_of(lock)
    assert len(blocks) > 100
    for name, block in blocks.items():
        heads = [line for line in block.splitlines() if not line.startswith(" ")]
        assert all(re.fullmatch(rf"{re.escape(name)}==\S+(?: ; .+)? \\", head) for head in heads), heads
        assert block.count("--hash=sha256:") >= len(heads)


def test_lock_fits_what_the_project_asks_for(project: dict[str, Any], lock: str, setup_module: ModuleType) -> None:
    blocks = setup_module.packages_of(lock)
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    for line in asked:
        requirement = Requirement(line)
        name = requirement.name.lower().replace("_", "-")
        assert name in blocks, f"{line!r} is not in requirements.lock; run: make lock"
        versions = re.findall(r"^\S+==(\S+)", blocks[name], re.MULTILINE)
        for version in versions:
            assert requirement.specifier.contains(version), f"{line!r}: locked is {version}; run: make lock"


def test_lock_brings_no_deep_learning_stack(lock: str, setup_module: ModuleType) -> None:
    heavy = {"torch", "tensorflow", "jax", "transformers", "pyspark"}
    names = set(setup_module.packages_of(lock))
    assert not heavy & names
    assert not {name for name in names if name.startswith("nvidia-")}


# --- make and CI --------------------------------------------------------------------------------


def plan(project_root: Path, target: str) -> str:
    """Returns the commands that make would run, as a make of its own: this test may run under one."""
    environ = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    return subprocess.run(
        ["make", "--dry-run", target], cwd=project_root, env=environ, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_sets_up_before_it_runs(project_root: Path, target: str) -> None:
    planned = plan(project_root, target).splitlines()
    assert planned[0] == "tools/setup"
    assert any(".venv/bin/" in line for line in planned[1:])


def test_make_test_leaves_long_tests_out_and_test_all_does_not(project_root: Path) -> None:
    assert 'pytest -m "not long"' in plan(project_root, "test")
    assert "not long" not in plan(project_root, "test-all")


@pytest.mark.parametrize("target", ["test", "test-all"])
def test_tests_run_in_two_processes_and_those_of_one_file_in_one(project_root: Path, target: str) -> None:
    assert plan(project_root, target).rstrip().endswith("--numprocesses 2 --dist loadfile")


def test_make_serve_prepares_and_runs_on_the_clock_of_the_demo(project_root: Path) -> None:
    planned = plan(project_root, "serve")
    assert planned.index("larder demo --prepare-only") < planned.index("larder ingest") < planned.index("larder serve")
    assert "LARDER_CLOCK=replay " in planned


def test_make_check_runs_lint_types_import_rules_and_tests(project_root: Path) -> None:
    planned = plan(project_root, "check")
    for command in ("ruff check", "ruff format --check", "mypy", "lint-imports", "pytest"):
        assert f".venv/bin/{command}" in planned or f"-m {command}" in planned


def test_ci_runs_the_readmes_test_command_and_the_rest_of_check(project_root: Path) -> None:
    script = project_root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert text.index("make test") < text.index("make --keep-going static")
    assert "LARDER_REQUIRE_ALL=1" in text


def test_a_skip_fails_where_every_part_must_be_there(project_root: Path, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_bytes((project_root / "tests" / "conftest.py").read_bytes())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_a(): pytest.skip('no such part')\n"
        "@pytest.mark.xfail(strict=True)\ndef test_b(): assert False\n"
        "def test_c(): pass\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(tmp_path),
        "--rootdir",
        str(tmp_path),
    ]
    environ = {name: value for name, value in os.environ.items() if name != "LARDER_REQUIRE_ALL"}
    environ["PYTHONPATH"] = str(project_root)  # conftest.py imports from `tests`
    strictly = environ | {"LARDER_REQUIRE_ALL": "1"}
    lenient, strict = (
        subprocess.run(command, env=each, cwd=tmp_path, capture_output=True, text=True, check=False)
        for each in (environ, strictly)
    )
    assert "1 passed, 1 skipped, 1 xfailed" in lenient.stdout
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert "no such part" in strict.stdout
    assert "1 failed, 1 passed, 1 xfailed" in strict.stdout


# --- setup --------------------------------------------------------------------------------------


@pytest.fixture
def setup_script(project_root: Path, tmp_path: Path) -> Path:
    """The search for a Python alone, in a folder without an environment; it finds no work to do there."""
    script = tmp_path / "tools" / "setup"
    script.parent.mkdir()
    script.write_bytes((project_root / "tools" / "setup").read_bytes())
    script.chmod(0o755)
    (script.parent / "setup_environment.py").write_text("import sys; print(sys.executable)\n")
    return script


def run_setup(script: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin"} | environ
    return subprocess.run([str(script)], env=environ, capture_output=True, text=True, check=False)


def test_setup_without_a_fitting_python_says_what_to_do(setup_script: Path) -> None:
    refused = run_setup(setup_script, PYTHON="/bin/false")
    assert refused.returncode == 1
    assert "no CPython 3.11 or 3.12 found (tried: /bin/false)" in refused.stderr
    assert "make PYTHON=" in refused.stderr


def test_setup_takes_the_python_that_is_named(setup_script: Path) -> None:
    assert run_setup(setup_script, PYTHON=sys.executable).stdout.strip() == sys.executable


def test_setup_keeps_the_python_of_an_environment_that_stands(setup_script: Path) -> None:
    python = setup_script.parent.parent / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    assert Path(run_setup(setup_script).stdout.strip()).resolve() == Path(sys.executable).resolve()
    assert ".venv" in run_setup(setup_script).stdout


def test_setup_passes_over_a_python_that_is_only_a_name(setup_script: Path, tmp_path: Path) -> None:
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python"):
        (shims / name).write_text("#!/bin/sh\necho 'not installed' >&2\nexit 127\n")
        (shims / name).chmod(0o755)
    (shims / "dirname").symlink_to("/usr/bin/dirname")
    refused = run_setup(setup_script, PATH=str(shims))
    assert refused.returncode == 1
    assert "tried: python3, python3.11, python3.12, python, uv" in refused.stderr


def test_setup_does_nothing_where_the_environment_stands(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make() -> None:
        made.append("made")
        setup_module.PYTHON.parent.mkdir(parents=True)
        setup_module.PYTHON.touch()
        setup_module.STAMP.write_text(setup_module.fingerprint())

    monkeypatch.setattr(setup_module, "make", make)
    assert setup_module.main() == 0
    assert setup_module.main() == 0
    assert made == ["made"]


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_calls_for_a_new_environment(setup_module: ModuleType, changed: str) -> None:
    before = setup_module.fingerprint()
    path = setup_module.ROOT / changed
    path.write_text(path.read_text().replace("duckdb", "goosedb", 1))
    assert setup_module.fingerprint() != before


def test_settings_of_linters_call_for_no_new_environment(setup_module: ModuleType) -> None:
    before = setup_module.fingerprint()
    path = setup_module.ROOT / "pyproject.toml"
    path.write_text(path.read_text().replace("line-length = 120", "line-length = 100"))
    assert setup_module.fingerprint() == before


def test_a_half_made_environment_is_made_anew(setup_module: ModuleType) -> None:
    setup_module.VENV.mkdir()
    setup_module.UNFINISHED.touch()
    (setup_module.VENV / "rest").touch()
    leftover = setup_module.ROOT / ".venv.abc"
    (leftover / "old").mkdir(parents=True)
    setup_module.clear_the_way()
    assert list(setup_module.VENV.iterdir()) == [setup_module.UNFINISHED]
    assert not leftover.exists()


def test_an_environment_of_somebody_else_is_left_alone(
    setup_module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_module.VENV.mkdir()
    theirs = setup_module.VENV / "pyvenv.cfg"
    theirs.touch()
    assert setup_module.main() == 1
    assert theirs.exists()
    assert "was not made by this script; move it away or delete it" in capsys.readouterr().err


def test_a_python_without_pip_and_ensurepip_says_what_to_install(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup_module, "find_pip", lambda: None)
    monkeypatch.setattr(setup_module.shutil, "which", lambda _: None)
    with pytest.raises(setup_module.SetupError, match=r"apt install python3\.\d+-venv\) or put uv on the PATH"):
        setup_module.install(tmp_path / "requirements", "", tmp_path)


def test_a_second_setup_waits_for_the_first(setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()
    # What is captured is emptied when it is read, and what another thread says in that instant would be lost.
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)

    def second() -> None:
        with setup_module.exclusive(setup_module.ROOT / ".venv.lock"):
            entered.set()

    with (setup_module.ROOT / ".venv.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=second)
        thread.start()
        poll_until(lambda: "waiting for it" in told.getvalue(), what="it says that it waits")
        assert not entered.is_set()
    thread.join(timeout=60)
    assert entered.is_set()


def test_uv_looks_for_packages_where_pip_is_told_to_look(
    setup_module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listing = (
        "global.index-url='https://first.example/simple'\n"
        "install.index-url='https://second.example/simple'\n"
        "global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'\n"
        ":env:.find-links='/wheels /more-wheels'\n"
        "global.timeout='9'\n"
    )
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    pip.chmod(0o755)
    for name in setup_module.UV_NAMES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_INDEX", "https://mine.example/simple")
    told = setup_module.with_settings_of([str(pip)])
    assert told["UV_DEFAULT_INDEX"] == "https://second.example/simple"
    assert told["UV_INDEX"] == "https://mine.example/simple"
    assert told["UV_FIND_LINKS"] == "/wheels,/more-wheels"


@pytest.mark.long
def test_two_setups_at_once_make_one_whole_environment(project_root: Path, tmp_path: Path) -> None:
    """Installs for real from the tracked files, after an interrupted run, by two processes at once."""
    for path in tracked_files(project_root):
        target = tmp_path / path.relative_to(project_root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        target.chmod(path.stat().st_mode)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "larder-unfinished").touch()
    environ = os.environ | {"PYTHON": sys.executable}
    setups = [
        subprocess.Popen([str(tmp_path / "tools" / "setup")], env=environ, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [setup.communicate(timeout=600)[1] for setup in setups]
    assert [setup.returncode for setup in setups] == [0, 0], said
    assert sum(".venv is ready" in text for text in said) == 1
    found = subprocess.run(
        [str(tmp_path / ".venv" / "bin" / "python"), "-c", "import store; print(store.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == tmp_path / "store" / "__init__.py"


# --- the code as text ---------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["store/limits.py", "server/limits.py"])
def test_every_limit_has_its_reason_beside_it(project_root: Path, module: str) -> None:
    body = ast.parse((project_root / module).read_text()).body
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            name = ast.unparse(target)
            reason = after.value if isinstance(after, ast.Expr) else None
            assert isinstance(reason, ast.Constant), f"{module}: {name} has no sentence under it that says why"
            assert isinstance(reason.value, str)
            assert len(reason.value) > 20, f"{module}: {name}: {reason.value!r} is no reason"


def test_no_path_of_a_machine_in_tracked_files(project_root: Path) -> None:
    for path in tracked_files(project_root):
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            found = [place for place in PATHS_OF_MACHINES if place in line]
            assert not found, f"{path.relative_to(project_root)}:{number}: {found} is a path of one machine"


def test_nobody_imports_the_declarations(project_root: Path) -> None:
    declarations = {path.stem for path in (project_root / "feature_repo").glob("*.py")}
    for path in tracked_files(project_root):
        if path.suffix != ".py" or path.parts[len(project_root.parts)] not in {"store", "server", "cli", "demo"}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top != "feature_repo", f"{path} imports {name}"
                assert top not in declarations, f"{path} imports {name}"
