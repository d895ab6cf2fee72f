"""The tool that runs Feast's own tests: where it takes them from, and what it makes of two runs."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def modules(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The tool's modules, which import each other as scripts of one folder do."""
    monkeypatch.syspath_prepend(project_root / "tools" / "feast_suite")
    names = ("preparation", "suites", "runs", "comparison")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository laid out like Feast's, with its tests at the tag v1 and none any more after it."""
    folder = tmp_path / "feast"
    kept = folder / "sdk" / "python"
    (kept / "tests").mkdir(parents=True)
    (kept / "feast").mkdir()
    for name in ("pytest.ini", "tests/test_one.py", "feast/__init__.py"):
        (kept / name).write_text(name)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "-m", "with tests"],
        ["tag", "v1"],
        ["rm", "--quiet", "-r", "sdk/python/tests"],
        ["commit", "--quiet", "-m", "without"],
        ["config", "uploadpack.allowFilter", "true"],
    ):
        subprocess.run([*git, *command], check=True)
    return folder


@pytest.mark.parametrize("is_url", [True, False], ids=["url", "folder"])
def test_tests_are_taken_at_the_revision_and_without_the_sources(
    modules: dict[str, ModuleType], clone: Path, tmp_path: Path, is_url: bool
) -> None:
    source = clone.as_uri() if is_url else str(clone)
    cache = tmp_path / "cache"
    folder, commit = modules["preparation"].fetch_tests(source, "v1", cache)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"pytest.ini", "tests/test_one.py", "commit"}
    tagged = subprocess.run(["git", "-C", str(clone), "rev-parse", "v1"], capture_output=True, text=True, check=True)
    assert commit == tagged.stdout.strip()
    # Nothing is fetched twice: the repository may be gone.
    clone.rename(clone.with_name("gone"))
    assert modules["preparation"].fetch_tests(source, "v1", cache) == (folder, commit)


def test_a_revision_that_is_not_there_is_named(modules: dict[str, ModuleType], clone: Path, tmp_path: Path) -> None:
    with pytest.raises(modules["preparation"].SuiteError, match="v2"):
        modules["preparation"].fetch_tests(str(clone), "v2", tmp_path / "cache")


def test_results_are_read_by_the_name_that_both_runs_share(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    def case(name: str, inside: str) -> str:
        parameters = f"ParameterSet(values=(LOCAL:{name}:RedisCreator:python_fs:False,), marks=[], id=None)"
        return f'<testcase name="test_it[{parameters}-True]">{inside}</testcase>'

    results = tmp_path / "results.xml"
    failure = '<failure message="E\n  no such column"/>'
    results.write_text(f"<r>{case('Parquet', '')}{case('Delta', failure)}</r>")
    outcome = modules["runs"].Outcome
    assert modules["runs"]._outcomes(results) == {
        "test_it[Parquet-True]": outcome("passed"),
        "test_it[Delta-True]": outcome("failed", "E no such column"),
    }


def test_ours_has_to_pass_what_feasts_passes(modules: dict[str, ModuleType]) -> None:
    outcome, compare = modules["runs"].Outcome, modules["comparison"].compare
    passed, failed, skipped = outcome("passed"), outcome("failed", "why"), outcome("skipped", "no reason")
    feasts = {"both": passed, "ours": failed, "none": failed, "left": skipped}
    good = compare(feasts, {"both": passed, "ours": passed, "none": failed, "left": skipped}, has_delta_extension=True)
    assert good.is_good
    assert (good.both, list(good.only_ours), list(good.neither), list(good.skipped)) == (
        ["both"],
        ["ours"],
        ["none"],
        ["left"],
    )
    for our_outcome in ({"both": failed}, {"both": skipped}, {}):
        bad = compare({"both": passed, "other": passed}, {"other": passed, **our_outcome}, has_delta_extension=True)
        assert not bad.is_good
        assert list(bad.only_feasts) == ["both"]
    assert not compare({"none": failed}, {"none": failed}, has_delta_extension=True).is_good, (
        "two runs in which all fails show nothing"
    )


def test_a_difference_on_purpose_is_named_and_must_still_be_one(modules: dict[str, ModuleType]) -> None:
    outcome, compare = modules["runs"].Outcome, modules["comparison"].compare
    passed, failed = outcome("passed"), outcome("failed", "E  got None")
    intended = {"test_it": modules["suites"].Difference("ours is stricter", sign="got None")}
    feasts = {"test_it[a]": passed, "test_that[a]": passed}

    def compared(**ours: object) -> object:
        return compare(
            feasts, {f"{name}[a]": o for name, o in ours.items()}, has_delta_extension=True, intended=intended
        )

    good = compared(test_it=failed, test_that=passed)
    assert good.is_good
    assert good.intended == {"test_it[a]": "ours is stricter"}
    assert "ours is stricter" in modules["comparison"].report(good)
    assert not compared(test_it=failed, test_that=failed).is_good
    assert not compared(test_it=outcome("failed", "crashed"), test_that=passed).is_good, "another failure"
    assert not compared(test_it=passed, test_that=passed).is_good, "the entry is stale"
    assert not compared(test_that=passed).is_good, "a test that did not run is no difference on purpose"


def test_delta_is_judged_by_parquet_where_feasts_store_cannot_read_it(modules: dict[str, ModuleType]) -> None:
    outcome, compare = modules["runs"].Outcome, modules["comparison"].compare
    passed, failed = outcome("passed"), outcome("failed", "no extension")
    feasts = {"test_it[Parquet]": passed, "test_it[Delta]": failed}
    ours = {"test_it[Parquet]": passed, "test_it[Delta]": failed}
    assert list(compare(feasts, ours, has_delta_extension=False).owed) == ["test_it[Delta]"]
    assert not compare(feasts, ours, has_delta_extension=False).is_good
    assert compare(feasts, ours, has_delta_extension=True).is_good
