"""What lookups of one turn of the event loop count together is what each of them counts alone."""

import asyncio
import math
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import Metrics
from server.rates import ViewRates
from store.monitor.audits import KeptAudit
from store.monitor.freshness import ViewFreshness
from store.requests import LogTotals, LookupAnswer

NOW_US = 1_800_000_000_000_000
DAY_US = 86_400_000_000
# Ages at the bounds of the histogram's buckets and around them, in the future too.
ages_us = st.sampled_from([-DAY_US, 0, 10_000_000, 10_000_001, 3_600_000_000, DAY_US, 181 * DAY_US])
ages_us |= st.integers(-DAY_US, 200 * DAY_US)
statuses = st.dictionaries(st.sampled_from(["PRESENT", "NOT_FOUND"]), st.integers(1, 9))
lookups = st.lists(st.tuples(st.lists(ages_us, max_size=40), statuses), max_size=5)


def samples(metrics: Metrics) -> Counter[tuple[str, ...]]:
    """Returns the values of a scrape by name and labels."""
    return Counter(
        {
            (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(metrics.scrape().decode())
            for sample in family.samples
        }
    )


@given(lookups)
def test_lookups_are_counted_together_as_each_alone(asked: list[tuple[list[int], dict[str, int]]]) -> None:
    metrics = Metrics()

    async def count(asked: list[tuple[list[int], dict[str, int]]]) -> None:
        for ages, counts in asked:
            event_us = [NOW_US - age for age in ages]
            status_counts = {("v", status): number for status, number in counts.items()}
            unknown = [("v", len(ages) // 2)] if len(ages) > 1 else []
            metrics.count_lookup(LookupAnswer(b"", NOW_US, len(ages), status_counts, [("v", event_us)], 1, 2, unknown))
            metrics.count_request("/get-online-features", "POST", 200, 0.25)
            metrics.count_round_trip(0.0004)

    # A label's values may be as old as the process, so each is there before what is added counts.
    asyncio.run(count([([0, 0], {"PRESENT": 1, "NOT_FOUND": 1})]))
    before = samples(metrics)
    asyncio.run(count(asked))
    after = samples(metrics)

    def added(name: str, *labels: str) -> float:
        return after[name, *labels] - before[name, *labels]

    seconds = [age / 1e6 for ages, _ in asked for age in ages]
    age = "larder_lookup_row_age_seconds"
    for bound in [labels[0] for name, *labels in after if name == f"{age}_bucket"]:
        upto = float(bound.removeprefix("le="))
        assert added(f"{age}_bucket", bound, "view=v") == sum(each <= upto for each in seconds)
    assert math.isclose(added(f"{age}_sum", "view=v"), sum(seconds), abs_tol=0.01)
    for status in ("PRESENT", "NOT_FOUND"):
        expected = sum(counts.get(status, 0) for _, counts in asked)
        assert added("larder_lookup_values_total", f"status={status}", "view=v") == expected
    assert added("larder_lookup_keys_total") == added("larder_lookup_rows_total", "view=v") == len(seconds)
    assert added("larder_lookup_unknown_keys_total", "view=v") == sum(len(ages) // 2 for ages, _ in asked)
    assert added("larder_lookup_future_rows_total") == len(asked)
    assert added("larder_lookup_overflows_total") == 2 * len(asked)
    labels = ("method=POST", "path=/get-online-features", "status=200")
    assert added("larder_requests_total", *labels) == len(asked)
    assert added("larder_request_seconds_bucket", "le=0.25", "path=/get-online-features") == len(asked)
    assert added("larder_request_seconds_bucket", "le=0.1", "path=/get-online-features") == 0
    assert added("larder_redis_round_trip_seconds_bucket", "le=0.0005") == len(asked)
    assert added("larder_redis_round_trip_seconds_bucket", "le=0.00025") == 0


def test_rates_are_what_the_counters_say_since_the_server_began() -> None:
    metrics = Metrics()
    began_us = time.time_ns() // 1_000

    async def count() -> None:
        counts = {("b", "PRESENT"): 4, ("b", "NOT_FOUND"): 2, ("on_demand", "PRESENT"): 3}
        metrics.count_lookup(LookupAnswer(b"", NOW_US, 3, counts, [("b", [NOW_US] * 2), ("a", [])], 0, 0, [("a", 3)]))
        metrics.count_lookup(LookupAnswer(b"", NOW_US, 3, counts, [("b", [NOW_US] * 2)], 0, 0, [("b", 1)]))

    asyncio.run(count())
    rates = metrics.rates()
    assert abs(rates.since_us - began_us) < 60_000_000
    assert rates.views == (
        ViewRates("a", rows=3, unknown_keys=3),
        ViewRates("b", rows=6, unknown_keys=1, statuses={"NOT_FOUND": 4, "PRESENT": 8}),
        ViewRates("on_demand", statuses={"PRESENT": 6}),
    )
    assert Metrics().rates().views == ()


def test_what_monitoring_does_not_know_has_no_value() -> None:
    metrics = Metrics()
    metrics.monitor.now_us = lambda: NOW_US
    metrics.monitor.views = [
        ViewFreshness("known", NOW_US - 10_000_000, NOW_US + 1_000_000, ttl_seconds=60.0),
        ViewFreshness("unknown", offline_problem="gone"),
        ViewFreshness("1970", 0, None),
    ]
    names = ("larder_view_", "larder_audit_")
    assert {key: value for key, value in samples(metrics).items() if key[0].startswith(names)} == {
        ("larder_view_offline_freshness_seconds", "view=known"): 10,
        ("larder_view_offline_freshness_seconds", "view=1970"): NOW_US / 1e6,
        ("larder_view_online_freshness_seconds", "view=known"): -1,
        ("larder_view_ttl_seconds", "view=known"): 60,
    }
    metrics.monitor.audit = KeptAudit(NOW_US - 5_000_000, False, {})
    found = samples(metrics)
    assert (found["larder_audit_failed",], found["larder_audit_age_seconds",]) == (1, 5)


def test_what_became_of_served_vectors_is_counted() -> None:
    metrics = Metrics()
    metrics.count_logged(LogTotals("checkout", logged=3, sampled_out=2, dropped=1, failures=1))
    metrics.count_logged(LogTotals("checkout", logged=4))
    found = samples(metrics)
    total, failures = "larder_served_vectors_total", "larder_served_log_failures_total"
    assert {
        outcome: found[total, f"outcome={outcome}", "service=checkout"]
        for outcome in ("logged", "sampled_out", "dropped")
    } == {"logged": 7, "sampled_out": 2, "dropped": 1}
    assert found[failures, "service=checkout"] == 1
