"""Whatever happens to a view, its audit reproduces all that can be known, and finds a cause for every difference."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from feast.data_source import PushMode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from store.clock import to_us
from tests.audit.logged_shop import (
    DAY,
    LoggedShop,
    added,
    causes_of,
    different,
    features_of,
    lost_of,
    one_user,
)
from tests.oracles.audits import Row, Run, skew
from tests.stores import NOW

KEYS = (1, 2, 3, 4)
MINUTE = timedelta(minutes=1)
# Few event times, so that rows meet: most lie in the past, some not yet.
events = st.integers(-4, 3).map(lambda step: step * 10)
WAYS = {"file": None, "offline": PushMode.OFFLINE, "both": PushMode.ONLINE_AND_OFFLINE, "online": PushMode.ONLINE}


@dataclass(frozen=True)
class Step:
    """Some minutes pass, rows come by their ways, maybe a materialization runs, then all keys are served."""

    minutes: int
    rows: dict[tuple[int, int], str]
    is_materialized: bool


steps = st.lists(
    st.builds(
        Step,
        st.integers(1, 25),
        st.dictionaries(st.tuples(st.sampled_from(KEYS), events), st.sampled_from(sorted(WAYS)), max_size=6),
        st.booleans(),
    ),
    min_size=2,
    max_size=4,
)


def check(shop: LoggedShop, history: Sequence[Step]) -> None:
    # Of a user whom nobody asks for, so that the file has its types.
    file_rows = one_user(9, NOW - DAY, 0)
    shop.write_source(file_rows)
    rows, runs, vectors, values = [], [], [], count(1_000)
    now = NOW
    for step in history:
        now += step.minutes * MINUTE
        shop.set_clock(now)
        for (key, minutes), way in step.rows.items():
            event = NOW + minutes * MINUTE
            if way != "file" and event > now:
                continue  # a push from the future is refused
            row = Row(key, to_us(event), next(values), to_us(now), way != "online")
            rows.append(row)
            frame = one_user(key, event, row.value, now)
            if (mode := WAYS[way]) is None:
                file_rows = added(file_rows, frame)
                shop.write_source(file_rows)
            else:
                shop.push(frame, mode)
        if step.is_materialized:
            shop.materialize(NOW - DAY, now)
            runs.append(Run(to_us(NOW - DAY), to_us(now)))
        [answer] = shop.serve(KEYS)
        place = answer["metadata"]["feature_names"].index("orders")
        at_us = to_us(now)  # and some milliseconds, in which nothing happens
        vectors += [(key, at_us, value) for key, value in zip(KEYS, answer["results"][place]["values"], strict=True)]
    told = shop.audit()
    assert different(told) == {}
    assert told["is_clean"], told["differences"][:3]
    assert features_of(told)["users:orders"]["audited"] == len(vectors)
    assert causes_of(told).get("users:orders", {}) == skew(vectors, rows, runs)
    served_online_only = {row.value for row in rows if not row.is_landed} & {value for _, _, value in vectors}
    lost = sum(value in served_online_only for _, _, value in vectors)
    assert lost_of(told).get("users:orders", {}) == ({"online only": lost} if lost else {})


def test_a_history_with_everything_in_it(shop: LoggedShop) -> None:
    check(
        shop,
        [
            Step(1, {(1, -10): "file", (2, -20): "both", (3, -10): "online"}, is_materialized=True),
            Step(5, {(1, -20): "file", (1, -10): "offline", (2, -10): "file", (4, 0): "file"}, is_materialized=False),
            Step(9, {(1, 10): "both", (2, 30): "file", (3, -10): "file"}, is_materialized=True),
            Step(1, {(4, 10): "file", (1, 10): "offline"}, is_materialized=False),
        ],
    )


# An example takes half a second, so there is no time for finding the smallest that fails.
@settings(
    max_examples=2,
    phases=[Phase.explicit, Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps)
def test_audits_of_random_histories_are_those_of_the_model(made: LoggedShop, history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(made.copied(Path(folder) / "repo"), history)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_audits_of_many_random_histories_are_those_of_the_model(made: LoggedShop, history: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(made.copied(Path(folder) / "repo"), history)
