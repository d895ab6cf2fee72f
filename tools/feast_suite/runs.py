"""One run of Feast's universal tests with one store, and what became of each test."""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from preparation import SuiteError
from suites import Suite

RUN_SECONDS_MAX = 3600
"""A run takes two minutes; one that takes an hour hangs."""

_PARAMETERS = re.compile(r"ParameterSet\(values=\(LOCAL:(\w+):\w+:python_fs:False,\), marks=\[\], id=None\)")


@dataclass(frozen=True)
class Outcome:
    """What became of a test: `passed`, `skipped` or `failed`, and why."""

    verdict: str
    reason: str = ""


def run_tests(suite: Suite, store: str, python: Path, tests: Path, options: list[str]) -> dict[str, Outcome]:
    """Returns the outcome of every test of a suite by its name.

    Raises:
        SuiteError: the tests did not run at all.
    """
    results = tests.parent / f"{store}.xml"
    results.unlink(missing_ok=True)
    plugin = Path(__file__).resolve().parent / "plugin"
    environment = os.environ | {
        "LARDER_FEAST_SUITE_STORE": store,
        "FULL_REPO_CONFIGS_MODULE": suite.plugin,
        "FEAST_IS_LOCAL_TEST": "True",
        "PYTHONPATH": str(plugin),
    }
    command = [
        str(python), "-m", "pytest", *suite.arguments, *options, "--integration", "--dist", "loadgroup", "--quiet",
        "--tb=short", "--durations=0", "-p", "no:cacheprovider", f"--junitxml={results}",
    ]  # fmt: skip
    log = tests.parent / f"{store}.log"
    print(f"feast-suite: running with {store} (log: {log})", flush=True)
    with log.open("w") as file:
        try:
            subprocess.run(
                command, cwd=tests, env=environment, stdout=file, stderr=file, timeout=RUN_SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SuiteError(f"the tests did not end within {RUN_SECONDS_MAX} s; see {log}") from error
    outcomes = _outcomes(results) if results.exists() else {}
    if not outcomes:
        raise SuiteError(f"no test ran; see {log}")
    return outcomes


def _outcomes(results: Path) -> dict[str, Outcome]:
    # The file was written by our own run a moment ago.
    cases = ET.parse(results).iter("testcase")  # noqa: S314
    return {_PARAMETERS.sub(r"\1", case.get("name", "")): _outcome(case) for case in cases}


def _outcome(case: "ET.Element[str]") -> Outcome:
    for tag, verdict in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(tag)
        if found is not None:
            return Outcome(verdict, " ".join(found.get("message", "").split())[:300])
    return Outcome("passed")
