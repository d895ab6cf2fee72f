"""Lookups of drivers whose tips are told by their number, so that an answer to somebody else's request would show."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

import httpx

from store.limits import LOOKUP_SECONDS_MAX
from tests.server.live import LiveServer

# Above the deadline of a lookup, for a machine that does other things as well.
DEADLINE_SECONDS = LOOKUP_SECONDS_MAX + 1.0
DRIVERS = 400
CALLERS = 6
AT = "2020-01-01T00:00:00Z"


def tips_of(driver: int) -> float:
    return driver * 1.5


def ask(live: LiveServer, drivers: list[int]) -> httpx.Response:
    return live.lookup({"driver_id": drivers, "city": ["york"] * len(drivers)}, "areas:tips")


def write(live: LiveServer, drivers: list[int]) -> httpx.Response:
    columns = {"driver_id": drivers, "city": ["york"] * len(drivers), "tips": [tips_of(d) for d in drivers]}
    rows = {**columns, "event_timestamp": [AT] * len(drivers)}
    return live.post("/write-to-online-store", {"feature_view_name": "areas", "df": rows})


def assert_right(answer: httpx.Response, drivers: list[int]) -> None:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    results = dict(zip(body["metadata"]["feature_names"], body["results"], strict=True))
    tips = results["tips"]
    assert (results["driver_id"]["values"], tips["values"]) == (drivers, [tips_of(driver) for driver in drivers])
    assert tips["statuses"] == ["PRESENT"] * len(drivers)


def assert_refused_in_form(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert list(answer.json()) == ["detail"]
    assert "Redis" in answer.json()["detail"]


def assert_refused(request: Callable[[], httpx.Response]) -> None:
    started = time.monotonic()
    answer = request()
    assert time.monotonic() - started < DEADLINE_SECONDS
    assert_refused_in_form(answer)


@dataclass
class Callers:
    """Threads that look drivers up all the time, and what became of it."""

    live: LiveServer
    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds_max: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event)

    def call(self, seed: int) -> None:
        random = Random(seed)
        while not self.is_over.wait(0.01):
            drivers = random.sample(range(1, DRIVERS + 1), random.choice([1, 3, 200]))
            started = time.monotonic()
            answer = ask(self.live, drivers)
            self.seconds_max = max(self.seconds_max, time.monotonic() - started)
            try:
                if answer.status_code == 200:
                    assert_right(answer, drivers)
                    self.answered += 1
                else:
                    assert_refused_in_form(answer)
                    self.refused += 1
            except AssertionError as error:
                self.wrong.append(str(error)[:1_000])

    def is_served_again(self) -> Callable[[], bool]:
        """Returns a condition that holds once enough lookups were answered from now on."""
        enough = self.answered + 5 * CALLERS
        return lambda: self.answered >= enough


@contextmanager
def calling(live: LiveServer) -> Iterator[Callers]:
    """Looks drivers up from many threads; at the end every answer was right, or a refusal in time."""
    callers = Callers(live)
    threads = [threading.Thread(target=callers.call, args=(seed,)) for seed in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        callers.is_over.set()
        for thread in threads:
            thread.join(60)
        # Also where the block failed: a wrong answer is the better reason.
        assert not callers.wrong, callers.wrong[0]
    assert callers.seconds_max < DEADLINE_SECONDS
