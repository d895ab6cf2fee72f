"""The write script in a real Redis: rows stand by (event, created), whoever writes them and in whatever order."""

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.kernel.codec import RowLayout, RowTimes, encode_row
from store.kernel.definitions import Column
from store.kernel.keys import layouts_key, row_field
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Knowledge, Writing, read_rows, register_layout, write_rows
from tests.oracles.rows import WrittenRow, stands
from tests.redis_servers import private_redis

LAYOUT = RowLayout.of([Column("n", "INT64")])


@pytest.fixture(scope="module")
def session() -> Iterator[RedisSession]:
    with private_redis(Path(mkdtemp())) as server:
        session = RedisSession(parse_target(server.url, "redis", "mymaster", "test"))
        yield session
        session.close()


# The edges of the header's halves, of doubles, and of the datetimes that anybody writes.
_edges = st.sampled_from(
    [0, 1, -1, 2**31, 2**32, 2**53, 2**53 + 1, -(2**53) - 1, 253_402_300_799_999_999, -62_135_596_800_000_000]
)
instants_ns = st.builds(lambda us, ns: us * 1_000 + ns, _edges | st.integers(-3, 3), st.integers(0, 2))
written = st.builds(WrittenRow, instants_ns, st.none() | instants_ns, st.booleans(), st.just({}))


def stored(row: WrittenRow, tag: int, number: int) -> bytes:
    event_us, event_ns = divmod(row.event, 1_000)
    created = (None, 0) if row.created is None else divmod(row.created, 1_000)
    times = RowTimes(event_us, event_ns, *created)
    return encode_row(tag, times, LAYOUT.encoder()([number]), is_pushed=row.is_pushed)


def write(session: RedisSession, knowledge: Knowledge, rows: list[tuple[bytes, bytes]]) -> int:
    tag = session.hold(register_layout(knowledge, LAYOUT))
    return session.hold(write_rows(knowledge, "v", rows, Writing(tag, LAYOUT)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(written, min_size=1, max_size=8))
def test_the_row_that_stands_is_the_one_of_the_model(session: RedisSession, rows: list[WrittenRow]) -> None:
    session.client.flushall()
    knowledge = Knowledge("p")
    expected: WrittenRow | None = None
    replaced = 0
    for row in rows:
        winner = stands(expected, row)
        replaced += winner is row
        expected = winner
    encoded = [stored(row, LAYOUT.tag, number) for number, row in enumerate(rows)]
    assert write(session, knowledge, [(b"1:p:{k}", row) for row in encoded]) == replaced
    [[row]] = session.hold(read_rows(knowledge, [([b"1:p:{k}"], ("v",))]))
    assert row in [e for e, given_row in zip(encoded, rows, strict=True) if given_row == expected]


def test_many_writers_in_any_order_end_in_the_same_state(session: RedisSession) -> None:
    session.client.flushall()
    random = Random(7)
    keys = [b"1:p:{%d}" % number for number in range(40)]
    rows = [
        (key, stored(WrittenRow(random.randrange(10**6), None, False, {}), LAYOUT.tag, n))
        for n, key in enumerate(keys * 50)
    ]

    def writer(seed: int) -> None:
        mine = rows.copy()
        Random(seed).shuffle(mine)
        own = RedisSession(session.target)
        write(own, Knowledge("p"), mine)
        own.close()

    threads = [threading.Thread(target=writer, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = {key: max(row for k, row in rows if k == key) for key in keys}
    answers = session.hold(read_rows(Knowledge("p"), [(keys, ("v",))]))
    headers = [row[:14] for [row] in answers if row is not None]
    assert headers == [newest[key][:14] for key in keys]


def test_a_stored_row_of_a_newer_format_is_not_overwritten(session: RedisSession) -> None:
    session.client.flushall()
    session.client.hset(b"1:p:{k}", row_field("v", 1), b"\x30 from the future")
    with pytest.raises(Exception, match="format version 3"):
        write(session, Knowledge("p"), [(b"1:p:{k}", stored(WrittenRow(1, None, False, {}), LAYOUT.tag, 1))])
    assert session.client.hget(b"1:p:{k}", row_field("v", 1)) == b"\x30 from the future"


def test_a_flushed_redis_gets_the_layout_again_with_the_next_write(session: RedisSession) -> None:
    session.client.flushall()
    knowledge = Knowledge("p")
    row = stored(WrittenRow(1, None, False, {}), LAYOUT.tag, 1)
    write(session, knowledge, [(b"1:p:{k}", row)])
    session.client.flushall()
    write(session, knowledge, [(b"1:p:{k}", row)])
    assert session.client.hgetall(layouts_key("p")) == {str(LAYOUT.tag).encode(): LAYOUT.text.encode()}


def test_layouts_whose_tags_collide_get_different_ones(session: RedisSession) -> None:
    session.client.flushall()
    other = RowLayout.of([Column("m", "STRING")])
    session.client.hset(layouts_key("p"), str(LAYOUT.tag), other.text)
    assert session.hold(register_layout(Knowledge("p"), LAYOUT)) == LAYOUT.tag + 1
