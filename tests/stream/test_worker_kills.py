"""Workers that are killed, frozen and woken, at random moments while events come: each event has its effect once."""

import os
import signal
import threading
from pathlib import Path
from random import Random

import pytest
from feast.data_source import PushMode

from store.feature_store import FeatureStore
from store.online.stream_log import read_states
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer, poll_until
from tests.stream.conftest import wait_until_done
from tests.stream.shop import by_page, by_user, clicks, landed, landed_event_ids, sums
from tests.stream.workers import WarmWorkers, lapse_leases

USERS, PAGES = 40, 7


def rows_applied(context: StreamContext) -> int:
    states = context.session.hold(read_states(context.log, range(context.log.partitions)))
    return sum(state.applied_rows for state in states)


class Pushes:
    """Pushes events in the background and knows what they add up to: the oracle."""

    def __init__(self, shop: FeatureStore, random: Random) -> None:
        self.by_user = dict.fromkeys(range(USERS), 0.0)
        self.by_page = {f"page {n}": 0.0 for n in range(PAGES)}
        self.landed: list[float] = []
        self._shop = shop
        self._random = random
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._push_for_ever)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _push_for_ever(self) -> None:
        number = 0
        while not self._ended.is_set():
            user, page = self._random.randrange(USERS), f"page {self._random.randrange(PAGES)}"
            worths = [float(number + n) for n in range(1, 1 + self._random.randrange(1, 60))]
            number = int(worths[-1])
            lands = self._random.random() < 0.7
            to = PushMode.ONLINE_AND_OFFLINE if lands else PushMode.ONLINE
            self._shop.push("clicks", clicks(worths, user, page, minutes=self._random.uniform(1, 50)), to=to)
            self.by_user[user] += sum(worths)
            self.by_page[page] += sum(worths)
            self.landed += worths if lands else []
            # A few thousand events a second: their backlog would only make the test long.
            self._ended.wait(0.02)


def check(pushes: Pushes, server: RedisServer, repo: Path, context: StreamContext) -> None:
    """Compares what tiles and files hold with the oracle."""
    wait_until_done(context)
    assert sums(server, by_user(), "sum_worth_1d", pushes.by_user) == [v or None for v in pushes.by_user.values()]
    assert sums(server, by_page(), "sum_worth", pushes.by_page) == [v or None for v in pushes.by_page.values()]
    assert sorted(landed(repo)) == sorted(pushes.landed)
    ids = landed_event_ids(repo)
    assert len(ids) == len(set(ids)) == len(pushes.landed)
    assert server.client().keys("*dead*") == []


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_events_count_and_land_once_however_often_the_worker_is_killed(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, workers: WarmWorkers, kills: int
) -> None:
    random = Random(kills)
    pushes = Pushes(shop, random)
    try:
        for _ in range(kills):
            worker = workers.start(repo)
            applied = rows_applied(context)
            poll_until(lambda applied=applied: rows_applied(context) > applied, what="it has begun")
            threading.Event().wait(random.uniform(0, 0.6))
            workers.end(worker, signal.SIGKILL)
            lapse_leases(server)
    finally:
        pushes.stop()
    worker = workers.start(repo)
    check(pushes, server, repo, context)
    assert workers.end(worker, signal.SIGTERM) == 0


@pytest.mark.parametrize("freezes", [2, pytest.param(15, marks=pytest.mark.long)])
def test_a_worker_that_wakes_when_another_has_taken_over_changes_nothing(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, workers: WarmWorkers, freezes: int
) -> None:
    random = Random(freezes)
    pushes = Pushes(shop, random)
    frozen: list[int] = []
    try:
        for _ in range(freezes):
            worker = workers.start(repo)
            applied = rows_applied(context)
            poll_until(lambda applied=applied: rows_applied(context) > applied, what="it has begun")
            threading.Event().wait(random.uniform(0, 0.4))
            os.kill(worker, signal.SIGSTOP)
            lapse_leases(server)
            frozen.append(worker)
        worker = workers.start(repo)
        applied = rows_applied(context)
        poll_until(lambda: rows_applied(context) > applied, what="the last one works")
        for zombie in frozen:
            os.kill(zombie, signal.SIGCONT)
    finally:
        pushes.stop()
    check(pushes, server, repo, context)
    for each in (*frozen, worker):
        assert workers.end(each, signal.SIGTERM) == 0
