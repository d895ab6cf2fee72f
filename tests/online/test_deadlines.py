"""A synchronous lookup ends within its deadline, however slowly Redis answers: Feast's SDK waits no longer than we do.

Nothing here depends on how fast the machine is: what the proxy makes Redis take is many times the deadline.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import store.feature_store
import store.online
from store.errors import OnlineStoreTimeout
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Conversation
from tests.redis_proxy import RedisProxy
from tests.stores import NOW, make_store, user_rows

SECONDS = 0.5
READ_SECONDS = 0.4
LONG = "x" * 2_000


@pytest.fixture
def session(proxy: RedisProxy) -> Iterator[RedisSession]:
    target = parse_target(f"{proxy.address},socket_timeout={READ_SECONDS}", "redis", "mymaster", "test")
    session = RedisSession(target)
    assert session.hold(echoes("connected")) == ["connected"]
    yield session
    session.close()


def echoes(*texts: str) -> Conversation[list[str]]:
    """Asks for an echo of each text in a round trip of its own."""
    answers = []
    for text in texts:
        (answer,) = yield [("ECHO", text)]
        answers.append(answer.decode())
    return answers


def seconds_until_refused(work: Any, words: str) -> float:
    started = time.monotonic()
    with pytest.raises(OnlineStoreTimeout, match=words):
        work()
    return time.monotonic() - started


def test_an_answer_that_comes_byte_by_byte_ends_at_the_deadline(session: RedisSession, proxy: RedisProxy) -> None:
    proxy.trickle(0.01)
    seconds = seconds_until_refused(lambda: session.hold(echoes(LONG), SECONDS), "not all within 0.5 s")
    assert SECONDS <= seconds < 10 * SECONDS
    proxy.pass_on()
    # What still comes of it is taken for nobody's answer.
    assert session.hold(echoes("other"), SECONDS) == ["other"]


def test_many_round_trips_that_are_quick_enough_each_end_at_the_deadline_together(
    session: RedisSession, proxy: RedisProxy
) -> None:
    proxy.trickle(0.01)
    seconds = seconds_until_refused(lambda: session.hold(echoes(*["a"] * 1_000), SECONDS), "not all within 0.5 s")
    assert SECONDS <= seconds < 10 * SECONDS


def test_a_silent_redis_ends_a_read_before_the_deadline(session: RedisSession, proxy: RedisProxy) -> None:
    proxy.stall()
    seconds_until_refused(lambda: session.hold(echoes("a"), 60.0), f"did not answer within {READ_SECONDS} s")


def test_what_has_no_deadline_takes_as_long_as_its_reads_allow(session: RedisSession, proxy: RedisProxy) -> None:
    proxy.trickle(0.001)
    answers: list[Any] = []
    patient = threading.Thread(target=lambda: answers.append(session.hold(echoes(LONG))))
    patient.start()
    # Another thread's deadline is not its own.
    seconds_until_refused(lambda: session.hold(echoes(LONG), SECONDS), "not all within")
    patient.join(60)
    assert answers == [[LONG]]


def test_the_sdks_lookups_and_pushes_have_deadlines(
    repo: Path, proxy: RedisProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    monkeypatch.setattr(store.online, "LOOKUP_SECONDS_MAX", SECONDS)
    monkeypatch.setattr(store.feature_store, "PUSH_SECONDS_MAX", SECONDS)
    users = make_store(repo, f"{proxy.address},socket_timeout={READ_SECONDS}")
    users.push("users_push", user_rows(100))
    features, entities = ["users:orders", "users:name"], {"user_id": list(range(1, 101))}
    assert users.get_online_features(features, entities).to_dict()["orders"][0] == 10
    proxy.trickle(0.05)
    seconds_until_refused(lambda: users.get_online_features(features, entities), "not all within 0.5 s")
    seconds_until_refused(lambda: users.push("users_push", user_rows(100, NOW)), "not all within 0.5 s")
    proxy.pass_on()
    assert users.get_online_features(features, entities).to_dict()["orders"][0] == 10
