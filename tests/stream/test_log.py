"""The log itself: ids that rise, appends that are whole and happen once, bounds that hold, lines through all of it."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from store.errors import ConfigError, LogFull, OtherPush, OwnershipLost
from store.kernel.log_entries import Events, Line, decode_entry, encode_events
from store.online import log_appends
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Knowledge
from store.online.log_appends import LoggedEntry, Moved, PartitionAppend, PushName, append
from store.online.stream_log import StreamLog, advance, draw_line, open_log, read_entries, read_states
from store.online.stream_owners import keep, own, owners, show_alive
from tests.redis_servers import RedisServer

NOW_US = 1_772_366_400_000_000


@pytest.fixture
def session(server: RedisServer) -> Iterator[RedisSession]:
    server.client().flushall()
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
    yield session
    session.close()


@pytest.fixture
def log(session: RedisSession) -> StreamLog:
    return session.hold(open_log(Knowledge("shop"), 4))


def entry(rows: int = 1, floor: int = 0) -> LoggedEntry:
    content = encode_events(Events("clicks", ("user_id:INT64",), True, True, b"12345678", [list(range(rows))]))
    return LoggedEntry(content, rows, floor)


def ids(session: RedisSession, log: StreamLog, partition: int = 0) -> list[int]:
    return [entry_id for entry_id, _ in session.hold(read_entries(log, {partition: 0}, 1_000))[partition]]


def test_ids_are_the_clocks_and_rise_by_one_a_row_where_it_stands_still_or_goes_back(
    session: RedisSession, log: StreamLog
) -> None:
    for now_us in (NOW_US, NOW_US, NOW_US - 10**9, NOW_US + 100):
        session.hold(append(log, {0: PartitionAppend([entry(3), entry(1)])}, now_us))
    starts = [NOW_US, NOW_US + 4, NOW_US + 8, NOW_US + 100]
    # An entry has the id of its last row.
    assert ids(session, log) == [last for start in starts for last in (start + 2, start + 3)]


def test_no_row_of_a_copy_has_an_id_below_its_floor(session: RedisSession, log: StreamLog) -> None:
    session.hold(append(log, {0: PartitionAppend([entry(2, NOW_US + 500)])}, NOW_US))
    assert ids(session, log) == [NOW_US + 501]


@pytest.mark.parametrize("now_us", [-1, 0, 2**53])
def test_a_clock_that_cannot_give_ids_is_refused(session: RedisSession, log: StreamLog, now_us: int) -> None:
    with pytest.raises(ConfigError, match="1970 to 2255"):
        session.hold(append(log, {0: PartitionAppend([entry()])}, now_us))
    assert ids(session, log) == []


def test_another_number_of_partitions_is_refused_with_the_one_there_is(session: RedisSession, log: StreamLog) -> None:
    with pytest.raises(ConfigError, match=r"stream_partitions is 5.* has 4 partitions.*set it to 4"):
        session.hold(open_log(Knowledge("shop"), 5))
    assert session.hold(open_log(Knowledge("shop"), 4)) == log


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_log_takes_all_of_a_push_or_nothing(
    session: RedisSession, log: StreamLog, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(log_appends, "LOG_ENTRIES_MAX", 3)
    session.hold(append(log, {0: PartitionAppend([entry()] * 3)}, NOW_US))
    push = {1: PartitionAppend([entry()]), 0: PartitionAppend([entry()])}
    if room:
        owner = session.hold(own("shop", "0", "w", 60_000))
        assert owner is not None
        session.hold(advance(log, 0, owner.token, {"applied": NOW_US}, NOW_US))
        session.hold(append(log, push, NOW_US))
    else:
        with pytest.raises(LogFull, match=r"partition 0 .*full.*larder ingest"):
            session.hold(append(log, push, NOW_US))
    assert len(ids(session, log, 0)) == 3
    assert len(ids(session, log, 1)) == room


def test_the_bytes_of_a_log_are_bounded_and_what_was_taken_out_gives_room(
    session: RedisSession, log: StreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(entry().content)
    monkeypatch.setattr(log_appends, "LOG_BYTES_MAX", 2 * size)
    session.hold(append(log, {0: PartitionAppend([entry()] * 2)}, NOW_US))
    with pytest.raises(LogFull, match="bytes"):
        session.hold(append(log, {0: PartitionAppend([entry()])}, NOW_US))
    owner = session.hold(own("shop", "0", "w", 60_000))
    assert owner is not None
    session.hold(advance(log, 0, owner.token, {"done_bytes": size}, NOW_US))
    session.hold(append(log, {0: PartitionAppend([entry()])}, NOW_US))
    assert len(ids(session, log)) == 2


def test_a_push_of_a_name_is_there_once_and_its_name_stands_for_nothing_else(
    session: RedisSession, log: StreamLog
) -> None:
    push = {1: PartitionAppend([entry()]), 2: PartitionAppend([entry(), entry()])}
    name = PushName(b"key", b"content")
    first = session.hold(append(log, push, NOW_US, push=name))
    again = session.hold(append(log, push, NOW_US + 86_400_000_000, push=name))
    assert (first[1], first[2]) == (NOW_US, NOW_US + 1)
    assert set(again.values()) == {0}
    assert len(ids(session, log, 1)) == 1
    assert len(ids(session, log, 2)) == 2
    # Also where the other one would go into other partitions only.
    for other in (push, {0: PartitionAppend([entry()])}, {3: PartitionAppend([entry()])}):
        with pytest.raises(OtherPush, match="another push came with this key"):
            session.hold(append(log, other, NOW_US, push=PushName(b"key", b"other")))
    assert ids(session, log, 0) == ids(session, log, 3) == []
    # After two days it is forgotten.
    assert session.hold(append(log, push, NOW_US + 2 * 86_400_000_000, push=name))[1] > 0


def test_idempotency_keys_are_bounded(session: RedisSession, log: StreamLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_appends, "IDEMPOTENCY_KEYS_MAX", 2)
    push = {0: PartitionAppend([entry()])}
    names = [PushName(bytes([number]) * 4, b"") for number in (0, 4, 8)]
    for name in names[:2]:
        session.hold(append(log, push, NOW_US, push=name))
    with pytest.raises(LogFull, match="idempotency keys"):
        session.hold(append(log, push, NOW_US, push=names[2]))
    assert len(ids(session, log)) == 2


def cut_off(session: RedisSession, conversation: Generator[Any, Any, Any], batches: int) -> None:
    """Holds a conversation up to some batches, as a process that is killed then."""
    replies = None
    for _ in range(batches):
        replies = session._send(conversation.send(replies))
    conversation.close()


@pytest.mark.parametrize("calls", range(7))
def test_a_push_that_was_cut_off_goes_on_where_it_was(
    session: RedisSession, log: StreamLog, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(log_appends, "APPEND_ENTRIES_MAX", 2)
    push = {0: PartitionAppend([entry()] * 5), 1: PartitionAppend([entry()] * 4)}
    name = PushName(b"\1\2", b"content")
    cut_off(session, append(log, push, NOW_US, push=name), calls)
    session.hold(append(log, push, NOW_US, push=name))
    assert (len(ids(session, log, 0)), len(ids(session, log, 1))) == (5, 4)


def test_a_command_that_is_said_again_for_a_lost_reply_appends_once(session: RedisSession, log: StreamLog) -> None:
    conversation = append(log, {0: PartitionAppend([entry()])}, NOW_US, push=PushName.by_chance())
    commands = conversation.send(None)
    session._send(commands)
    session._send(commands)
    assert len(ids(session, log)) == 1


def test_what_an_origin_has_given_is_taken_once_and_in_order(session: RedisSession, log: StreamLog) -> None:
    def give(taken: str, upto: str) -> None:
        session.hold(append(log, {0: PartitionAppend([entry()], "3:clicks", taken, upto)}, NOW_US))

    give("", "7")
    for taken in ("", "5"):
        with pytest.raises(Moved) as moved:
            give(taken, "9")
        assert moved.value.taken == "7"
    give("7", "9")
    assert len(ids(session, log)) == 2
    (state,) = session.hold(read_states(log, [0]))
    assert (state.taken, state.appended) == ({"3:clicks": "9"}, 2)


def test_a_line_has_one_id_in_all_partitions_above_all_before_and_below_all_after(
    session: RedisSession, log: StreamLog
) -> None:
    session.hold(append(log, {2: PartitionAppend([entry()])}, NOW_US + 10_000_000))
    line = session.hold(draw_line(log, "by_user", NOW_US))
    assert line > NOW_US + 10_000_000
    session.hold(append(log, {p: PartitionAppend([entry()]) for p in range(4)}, NOW_US))
    for partition in range(4):
        entries = session.hold(read_entries(log, {partition: 0}, 10))[partition]
        assert [decode_entry(content) for entry_id, content in entries if entry_id == line] == [Line("by_user")]
        assert entries[-1][0] > line


def test_a_line_is_drawn_higher_where_pushes_were_faster(session: RedisSession, log: StreamLog) -> None:
    conversation = draw_line(log, "by_user", NOW_US)
    known = session._send(conversation.send(None))
    session.hold(append(log, {1: PartitionAppend([entry()])}, NOW_US + 5_000_000))
    try:
        replies = session._send(conversation.send(known))
        while True:
            replies = session._send(conversation.send(replies))
    except StopIteration as end:
        line = end.value
    assert line > NOW_US + 5_000_000
    assert all(line in ids(session, log, partition) for partition in range(4))


def test_only_the_last_owner_records_and_a_lease_is_one_workers(session: RedisSession, log: StreamLog) -> None:
    first = session.hold(own("shop", "0", "first", 60_000))
    assert first is not None
    assert session.hold(own("shop", "0", "second", 60_000)) is None
    session.hold(advance(log, 0, first.token, {"applied": 5}))
    assert session.hold(keep("shop", "0", first, 0))
    second = session.hold(own("shop", "0", "second", 60_000))
    assert second is not None
    assert session.hold(owners("shop", ["0", "1"])) == {"0": second, "1": None}
    assert second.worker == "second"
    with pytest.raises(OwnershipLost):
        session.hold(advance(log, 0, first.token, {"applied": 9}, NOW_US))
    assert not session.hold(keep("shop", "0", first, 60_000))
    (state,) = session.hold(read_states(log, [0]))
    assert state.applied == 5


def test_workers_that_do_not_tell_that_they_live_are_forgotten(session: RedisSession, log: StreamLog) -> None:
    assert session.hold(show_alive("shop", "a", 60_000)) == ["a"]
    assert session.hold(show_alive("shop", "b", 60_000)) == ["a", "b"]
    session.client.delete(b"4:shop:worker:a")
    assert session.hold(show_alive("shop", "b", 60_000)) == ["b"]
