"""Stream events in Redis: applied once whoever applies them how often, and read with what a materialization made."""

import random
from collections.abc import Iterator

import pytest

from store.errors import StoredRowError
from store.kernel.coverage import ViewState
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.keys import batch_tiles_key, stream_tiles_key
from store.kernel.stream_tiles import StreamEvent
from store.kernel.tiles import Seam, counted_entries, encode_batch, window_values
from store.kernel.windows import Function, WindowFeature
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Knowledge, read_state, replace_state
from store.online.views import say
from store.online.windowed_reads import KeysWanted, ViewTiles, read_stored
from store.online.windows import WindowedView, apply_stream, keep_definition, tile_plan
from tests.redis_servers import RedisServer

SECOND, HOUR, DAY = 1_000_000, 3_600_000_000, 86_400_000_000
NOW = 20_000 * DAY + 12 * HOUR
PROJECT = "shop"
KEY = b"4:shop:{4:useri7,}"


def definition(hop_us: int = HOUR) -> ViewDefinition:
    windows = tuple(
        WindowFeature(f"{name}_spent", "spent", Function(name), DAY, hop_us, kind)
        for name, kind in (("count", "INT64"), ("sum", "DOUBLE"))
    )
    columns = tuple(Column(w.name, w.type_name) for w in windows)
    return ViewDefinition(PROJECT, "user_windows", (Column("user", "INT64"),), columns, 0, None, windows)


@pytest.fixture
def session(server: RedisServer) -> Iterator[RedisSession]:
    server.client().flushall()
    session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
    yield session
    session.close()


def event(log_id: int, spent: float = 1.0, *, age_us: int = SECOND, is_landed: bool = True) -> StreamEvent:
    return StreamEvent(log_id, log_id, is_landed, NOW - age_us, None, (spent,))


def applied(session: RedisSession, events: list[StreamEvent], view: ViewDefinition, line_id: int = 0) -> int:
    """Applies events of one key as a worker does that knows nothing yet."""
    said = apply_stream(Knowledge(PROJECT), view, {KEY: events}, line_id=line_id, now_us=NOW)
    return session.hold(said)


def read(session: RedisSession, view: ViewDefinition, knowledge: Knowledge | None = None) -> tuple[object, ...]:
    wanted = [KeysWanted([KEY], (), (WindowedView.of(view),))]
    ((_, [tiles]),) = session.hold(read_stored(knowledge or Knowledge(PROJECT), wanted))
    return values(tiles)


def values(tiles: ViewTiles) -> tuple[object, ...]:
    (key,) = tiles.keys
    counted, _ = counted_entries(key.batch, key.stream, tiles.state.seam, NOW)
    return tuple(value.value for value in window_values(tiles.plan, tiles.plan.features, counted, NOW))


def test_events_are_applied_once_in_whatever_batches_they_come_again(session: RedisSession) -> None:
    view, rng = definition(), random.Random(7)
    events = [event(i + 1, i / 4, age_us=i * HOUR // 50) for i in range(100)]
    done = 0
    while done < len(events):
        start = max(0, done - rng.randint(0, 20))  # a redelivery begins before what was applied
        end = min(len(events), done + rng.randint(1, 15))
        assert applied(session, events[start:end], view) == end - done
        done = end
    assert read(session, view) == (100, sum(e.values[0] for e in events))


def test_two_workers_that_apply_the_same_events_at_once_count_them_once(session: RedisSession) -> None:
    view = definition()
    applied(session, [event(1)], view)
    both = [event(2, 2.0), event(3, 4.0)]
    slow = apply_stream(Knowledge(PROJECT), view, {KEY: both}, line_id=0, now_us=NOW)
    # The slow one has read what was applied, and is about to write.
    replies = session._send(slow.send(None))
    writing = slow.send(replies)
    assert applied(session, both, view) == 2
    replies = session._send(writing)
    # None of the tiles was changed; that the newest event came in is known already.
    assert replies == [[0], 0]
    with pytest.raises(StopIteration) as end:
        slow.send(session._send(slow.send(replies)))
    assert end.value.value == 0
    assert read(session, view) == (3, 7.0)


def test_a_materialization_takes_over_what_landed_and_nothing_else(session: RedisSession) -> None:
    view = definition()
    plan = tile_plan(view)
    applied(session, [event(1, 1.0), event(2, 2.0, is_landed=False)], view)
    applied(session, [event(10, 4.0)], view, line_id=5)
    assert read(session, view) == (3, 7.0)
    start = (NOW - SECOND) // HOUR * HOUR
    batch = encode_batch([[start, 0, 0, NOW - SECOND, 1, [1, 0]]])
    session.client.set(batch_tiles_key(KEY, view.name, 2), batch)
    knowledge = Knowledge(PROJECT)
    assert read(session, view, knowledge) == (3, 7.0)  # not before it takes over
    known = session.hold(read_state(PROJECT, view.name))
    state = ViewState(2, view.fingerprint, seam=Seam(0, 5))
    session.hold(replace_state(PROJECT, view.name, known, state))
    assert read(session, view, knowledge) == (3, 7.0)
    applied(session, [event(11, 8.0)], view, line_id=5)
    assert read(session, view, knowledge) == (4, 15.0)
    assert plan.hops == (HOUR,)


def test_an_external_source_holds_everything_before_the_batch_end(session: RedisSession) -> None:
    view = definition()
    applied(session, [event(1, 1.0, age_us=3 * HOUR), event(2, 2.0, is_landed=False, age_us=3 * HOUR)], view)
    applied(session, [event(3, 4.0)], view)
    known = session.hold(read_state(PROJECT, view.name))
    end = (NOW - 2 * HOUR) // HOUR * HOUR
    session.hold(replace_state(PROJECT, view.name, known, ViewState(2, view.fingerprint, seam=Seam(end, 0, True))))
    assert read(session, view) == (1, 4.0)


def test_tiles_of_an_earlier_definition_are_read_by_it(session: RedisSession) -> None:
    old, new = definition(), definition(hop_us=2 * HOUR)
    applied(session, [event(1, 1.0)], old)
    session.hold(say([keep_definition(old)]))
    known = session.hold(read_state(PROJECT, old.name))
    session.hold(replace_state(PROJECT, old.name, known, ViewState(2, old.fingerprint, seam=Seam(0, 0))))
    wanted = [KeysWanted([KEY], (), (WindowedView.of(new),))]
    ((_, [tiles]),) = session.hold(read_stored(Knowledge(PROJECT), wanted))
    assert tiles.plan.hops == (HOUR,)
    assert values(tiles) == (1, 1.0)
    applied(session, [event(1, 1.0), event(2, 2.0)], new)  # of which the earlier tiles had the first
    ((_, [tiles]),) = session.hold(read_stored(Knowledge(PROJECT), wanted))
    assert values(tiles) == (2, 3.0)
    session.hold(
        replace_state(
            PROJECT,
            old.name,
            session.hold(read_state(PROJECT, old.name)),
            ViewState(3, new.fingerprint, seam=Seam(0, 0)),
        )
    )
    assert read(session, new) == (2, 3.0)
    session.client.flushall()
    session.hold(replace_state(PROJECT, old.name, session.hold(read_state(PROJECT, old.name)), ViewState(2, "0" * 16)))
    with pytest.raises(StoredRowError, match="0000000000000000"):
        session.hold(read_stored(Knowledge(PROJECT), wanted))


def test_stream_tiles_expire_when_no_window_reaches_them(session: RedisSession) -> None:
    view = definition()
    applied(session, [event(1)], view)
    key = stream_tiles_key(KEY, view.name, view.fingerprint)
    assert (DAY + HOUR) // 1_000 <= session.client.pttl(key) + 1_000 <= (DAY + HOUR) // 1_000 + 130_000
