"""Rows that others put onto an inbox: checked like pushes, counted once, told and replayed where they do not fit."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from store.errors import InputError, MaterializationBusy, UnknownObject
from store.kernel.keys import inbox_key
from store.online.client import RedisSession
from store.online.dead_letters import DeadLetter, keep_letters, letters_kept
from store.online.stream_owners import own
from store.stream.context import StreamContext
from store.stream.feeding import Feeder
from store.stream.inbox import Inbox
from store.stream.replay import all_letters, replay
from tests.redis_servers import RedisServer, poll_until
from tests.stores import PROJECT
from tests.stream.conftest import StartWorker, wait_until_done
from tests.stream.shop import NOW, by_page, by_user, landed, sums

INBOX = inbox_key(PROJECT, "clicks")


def _some(count: int) -> list[Any]:
    """Returns every third number below a count, and the others for long runs."""
    return [n if n % 3 == 1 else pytest.param(n, marks=pytest.mark.long) for n in range(count)]


def row(worth: Any = 1.0, user: Any = 1, **changes: Any) -> str:
    said = {"user_id": user, "page": "home", "at": NOW.isoformat(), "worth": worth} | changes
    return json.dumps({name: value for name, value in said.items() if value != "left out"})


def put(server: RedisServer, content: str | bytes, **fields: Any) -> None:
    server.client().xadd(INBOX, {"row": content, **fields})


def wait_until_empty(server: RedisServer, context: StreamContext) -> None:
    poll_until(lambda: server.client().xlen(INBOX) == 0, what="the inbox is empty")
    wait_until_done(context)


def test_rows_of_an_inbox_count_and_land_like_pushed_ones(
    repo: Path, server: RedisServer, context: StreamContext, start_worker: StartWorker
) -> None:
    start_worker()
    for user in range(10):
        put(server, row(1.0, user))
        put(server, row(2.0, user), to="online_and_offline")
        put(server, row(4.0, user), to="offline")
    wait_until_empty(server, context)
    assert sums(server, by_user(), "sum_worth_1d", range(10)) == [3.0] * 10
    assert sums(server, by_page(), "sum_worth", ["home"]) == [30.0]
    assert sorted(landed(repo)) == [2.0] * 10 + [4.0] * 10
    assert list(all_letters(context)) == []


MISFITS = {
    "no JSON": b"{",
    "not UTF-8": b'{"user_id": "\xff"}',
    "a list": "[1]",
    "nothing": "{}",
    "a text for a number": row("much"),
    "no key": row(user=None),
    "an unknown column": row(colour="red"),
    "a missing column": row("left out"),
    "from the future": row(at="2027-01-01T00:00:00Z"),
    "from before time": row(at="yesterday"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_row_that_does_not_fit_is_kept_with_the_reason_and_the_others_count(
    server: RedisServer, context: StreamContext, what: str
) -> None:
    for worth, content in ((1.0, None), (0, MISFITS[what]), (2.0, None)):
        put(server, row(worth) if content is None else content)
    feeder = Feeder(context, Inbox(context, "clicks"))
    while feeder.step():
        pass
    (kept,) = all_letters(context)
    assert (kept.number, kept.state, kept.letter.push_source, kept.letter.to) == (1, "waiting", "clicks", "online")
    assert kept.letter.reason
    assert appended(server) == 2


def test_entries_without_a_row_or_with_more_fields_or_a_strange_target_are_kept_too(
    server: RedisServer, context: StreamContext
) -> None:
    server.client().xadd(INBOX, {"data": row()})
    put(server, row(), colour="red")
    put(server, row(), to="nowhere")
    feeder = Feeder(context, Inbox(context, "clicks"))
    while feeder.step():
        pass
    reasons = [kept.letter.reason for kept in all_letters(context)]
    assert ["'row'" in reason or "'nowhere'" in reason for reason in reasons] == [True] * 3


def killed_after(context: StreamContext, monkeypatch: pytest.MonkeyPatch, commands: int) -> None:
    """Steps through an inbox as a worker that is killed after some of its round trips."""

    class Killed(BaseException):
        pass

    left = commands
    whole = RedisSession._send

    def send(self: RedisSession, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return whole(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(RedisSession, "_send", send)
        feeder = Feeder(context, Inbox(context, "clicks"))
        try:
            while feeder.step():
                pass
        except Killed:
            pass


@pytest.mark.parametrize("commands", _some(16))
def test_a_worker_killed_at_any_round_trip_passes_each_row_on_once(
    server: RedisServer, context: StreamContext, monkeypatch: pytest.MonkeyPatch, commands: int
) -> None:
    for user in range(12):
        put(server, row(1.0, user))
        put(server, b"{")
    killed_after(context, monkeypatch, commands)
    feeder = Feeder(context, Inbox(context, "clicks"))
    while feeder.step():
        pass
    assert appended(server) == 12
    assert len(list(all_letters(context))) == 12


def feed_misfit(server: RedisServer, context: StreamContext, content: str = "") -> None:
    put(server, content or row("much"))
    feeder = Feeder(context, Inbox(context, "clicks"))
    while feeder.step():
        pass


def appended(server: RedisServer) -> int:
    states = server.client().keys("*partition:*")
    return sum(int(server.client().hget(key, "appended") or 0) for key in states)


def test_a_letter_is_replayed_once_when_its_row_was_corrected(server: RedisServer, context: StreamContext) -> None:
    feed_misfit(server, context)
    (failed,) = replay(context, [])
    assert "much" in failed.problem
    assert appended(server) == 0
    (done,) = replay(context, [1], row(5.0))
    assert done.problem == ""
    assert appended(server) == 1
    for again in ([1], [2]):
        with pytest.raises(UnknownObject, match="no dead letter"):
            replay(context, again)
    assert replay(context, []) == []
    assert [kept.state for kept in all_letters(context)] == ["replayed"]
    states = [server.client().hgetall(key) for key in server.client().keys("*partition:*")]
    assert [field for state in states for field in state if b"letter" in field] == []


@pytest.mark.parametrize("commands", _some(14))
def test_a_replay_killed_at_any_round_trip_is_done_once_by_the_next(
    server: RedisServer, context: StreamContext, monkeypatch: pytest.MonkeyPatch, commands: int
) -> None:
    feed_misfit(server, context)

    class Killed(BaseException):
        pass

    left, whole = commands, RedisSession._send

    def send(self: RedisSession, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0 and batch[0][0] != "PEXPIRE":
            raise Killed
        return whole(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(RedisSession, "_send", send)
        with contextlib.suppress(Killed):
            replay(context, [1], row(5.0, user=1))
    server.client().delete("4:shop:owner:{dead-letters}")
    # The row is corrected otherwise now, so that it would go elsewhere.
    if any(kept.state != "replayed" for kept in all_letters(context)):
        replay(context, [1], row(5.0, user=2))
    assert appended(server) == 1
    assert [kept.state for kept in all_letters(context)] == ["replayed"]


def test_two_replays_keep_out_of_each_others_way(server: RedisServer, context: StreamContext) -> None:
    feed_misfit(server, context)
    assert context.session.hold(own(PROJECT, "dead-letters", "another", 60_000)) is not None
    with pytest.raises(MaterializationBusy, match="being replayed"):
        replay(context, [])
    with pytest.raises(InputError, match="give its number"):
        replay(context, [], row())


def test_letters_are_bounded_and_those_that_went_are_counted(
    server: RedisServer, context: StreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.online.dead_letters.DEAD_LETTERS_MAX", 3)
    letters = [DeadLetter(f"x/{n}", "clicks", row(), "online", "why", 5) for n in range(5)]
    for _ in range(2):
        context.session.hold(keep_letters(PROJECT, letters[:3]))
    assert context.session.hold(letters_kept(PROJECT)) == (3, 0)
    context.session.hold(keep_letters(PROJECT, letters))
    assert context.session.hold(letters_kept(PROJECT)) == (3, 2)
    assert [kept.letter.place for kept in all_letters(context)] == ["x/2", "x/3", "x/4"]


def test_a_row_that_is_too_long_is_kept_in_part_and_cannot_be_replayed(
    server: RedisServer, context: StreamContext
) -> None:
    feed_misfit(server, context, row("x" * 100_000))
    (kept,) = all_letters(context)
    assert (len(kept.letter.row), kept.letter.to) == (64 * 1024, "")
    (answer,) = replay(context, [1])
    assert "cannot be replayed" in answer.problem
