"""Runs Feast's universal tests with Feast's own stores and with ours, and compares.

`make feast-suite` calls it. There are two suites: offline tests with Feast's DuckDB store beside
ours, and online and materialization tests with Feast's Redis store and local engine beside our three plug-ins. Whatever
passes with Feast's store has to pass with ours, but for the tests that `suites.py` names with a reason; otherwise the
exit status is 1.
The tests are Feast's and not part of this repository: they are taken from Feast's repository at the tag of the
installed version, or from a clone of it that is given. Each run has an environment of its own, with the packages that
Feast's tests need; those that decide the outcome have the versions of this environment.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from comparison import compare, report
from preparation import FEAST_VERSION, ROOT, SuiteError, fetch_tests, has_delta_extension, make_environment
from runs import run_tests
from suites import SUITES, Suite


def main() -> int:
    """Returns the exit status: 0 if ours passes all that Feast's passes, 1 if not, 2 if that could not be found out."""
    parser = argparse.ArgumentParser(prog="feast_suite", description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--source",
        default="https://github.com/feast-dev/feast",
        help="URL or folder of a clone of Feast's repository (%(default)s)",
    )
    parser.add_argument(
        "--revision",
        default=f"v{FEAST_VERSION}",
        help="its tag, branch or commit; for a URL a tag or branch (%(default)s)",
    )
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "feast-suite", help="work folder (%(default)s)")
    parser.add_argument("--workers", default="auto", help="processes that run tests (%(default)s)")
    parser.add_argument("--suite", choices=sorted(SUITES), help="run only this one")
    parser.add_argument("-k", dest="selection", default="", help="run only tests whose name fits, as in pytest")
    arguments = parser.parse_args()
    options = ["-n", arguments.workers, "-k", arguments.selection]
    try:
        cache = arguments.cache.resolve()
        tests, commit = fetch_tests(arguments.source, arguments.revision, cache)
        print(f"feast-suite: Feast's tests at {commit}, run against feast {FEAST_VERSION}", flush=True)
        names = [arguments.suite] if arguments.suite else list(SUITES)
        are_good = [_run(name, SUITES[name], tests, cache, options) for name in names]
    except SuiteError as error:
        print(f"feast-suite: {error}", file=sys.stderr)
        return 2
    return 0 if all(are_good) else 1


def _run(name: str, suite: Suite, tests: Path, cache: Path, options: list[str]) -> bool:
    """Runs one suite with both stores and prints the comparison; returns whether ours passes what it has to."""
    pythons = {store: make_environment(store, packages, cache) for store, packages in suite.packages.items()}
    outcomes = {store: run_tests(suite, store, python, tests, options) for store, python in pythons.items()}
    comparison = compare(
        outcomes[suite.feasts],
        outcomes[suite.ours],
        has_delta_extension=name == "offline" and has_delta_extension(pythons[suite.feasts]),
        intended=suite.intended,
    )
    print(f"\n{name}: {suite.feasts} beside {suite.ours}\n{report(comparison)}", flush=True)
    return comparison.is_good


if __name__ == "__main__":
    sys.exit(main())
