"""Runs Feast's universal offline tests with Feast's own DuckDB store and with ours, and compares.

`make feast-suite` calls it. Whatever passes with Feast's store has to pass with ours; otherwise the exit status is 1.
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
from runs import FEASTS, OURS, PACKAGES, run_tests


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
    parser.add_argument("-k", dest="selection", default="", help="run only tests whose name fits, as in pytest")
    arguments = parser.parse_args()
    try:
        cache = arguments.cache.resolve()
        tests, commit = fetch_tests(arguments.source, arguments.revision, cache)
        pythons = {store: make_environment(store, packages, cache) for store, packages in PACKAGES.items()}
        has_extension = has_delta_extension(pythons[FEASTS])
        print(f"feast-suite: Feast's tests at {commit}, run against feast {FEAST_VERSION}", flush=True)
        outcomes = {
            store: run_tests(python, tests, store, arguments.workers, arguments.selection)
            for store, python in pythons.items()
        }
    except SuiteError as error:
        print(f"feast-suite: {error}", file=sys.stderr)
        return 2
    comparison = compare(outcomes[FEASTS], outcomes[OURS], has_extension)
    print(report(comparison))
    return 0 if comparison.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
