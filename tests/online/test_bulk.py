"""A batch run's writer in a real Redis: rows stand as the write script has it, however they get there."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError

from store.errors import OnlineStoreError
from store.kernel.codec import RowLayout, RowTimes, encode_row
from store.kernel.definitions import Column
from store.kernel.keys import layouts_key, row_field
from store.limits import BULK_BYTES_MAX
from store.online import bulk
from store.online.bulk import BulkWriter, new_rows_commands
from store.online.client import RedisSession
from store.online.connection import parse_target
from store.online.conversations import Writing
from tests.oracles.rows import WrittenRow, stands
from tests.redis_proxy import redis_proxy
from tests.redis_servers import RedisServer, private_redis_tcp

LAYOUT = RowLayout.of([Column("n", "INT64")])
FIELD = row_field("v", 1)


@pytest.fixture(scope="module")
def session(tcp_server: RedisServer) -> Iterator[RedisSession]:
    session = session_at(tcp_server.address)
    yield session
    session.close()


def session_at(address: str) -> RedisSession:
    return RedisSession(parse_target(address, "redis", "mymaster", "test"))


def writer(session: RedisSession, key_ttl_seconds: int | None = None) -> BulkWriter:
    return BulkWriter(session, "p", FIELD, Writing(LAYOUT.tag, LAYOUT, key_ttl_seconds))


def key(number: int) -> bytes:
    return b"1:p:{1:ki%d,}" % number


def row(times: WrittenRow, number: int) -> bytes:
    at = RowTimes(times.event // 1_000, 0, None if times.created is None else times.created // 1_000)
    return encode_row(LAYOUT.tag, at, LAYOUT.encoder()([number]), is_pushed=times.is_pushed)


def columns(rows: list[bytes], first: int = 0) -> tuple[pa.Array, pa.Array]:
    return pa.array([key(first + number) for number in range(len(rows))], pa.binary()), pa.array(rows, pa.binary())


instants = st.integers(0, 3).map(lambda us: us * 1_000)
pushed = st.builds(WrittenRow, instants, st.none() | instants, st.booleans(), st.just({}))
batch = st.builds(WrittenRow, instants, st.none() | instants, st.just(False), st.just({}))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.none() | pushed, batch), max_size=8), st.booleans())
def test_rows_stand_as_the_model_has_it_whether_or_not_others_are_there(
    session: RedisSession, pairs: list[tuple[WrittenRow | None, WrittenRow]], expects_new: bool
) -> None:
    session.client.flushall()
    for number, (before, _) in enumerate(pairs):
        if before is not None:
            session.client.hset(key(number), FIELD, row(before, -1))
    filling = writer(session)
    filling.expects_new = expects_new
    filling.write(*columns([row(incoming, number) for number, (_, incoming) in enumerate(pairs)]))
    for number, (before, incoming) in enumerate(pairs):
        stays = stands(before, incoming) is before
        expected = row(before, -1) if before is not None and stays else row(incoming, number)
        assert session.client.hget(key(number), FIELD) == expected
    assert not pairs or session.client.hgetall(layouts_key("p")) == {b"%d" % LAYOUT.tag: LAYOUT.text.encode()}


def test_rows_that_are_there_are_expected_once_most_of_a_batch_were(session: RedisSession) -> None:
    session.client.flushall()
    rows = [row(WrittenRow(5_000, None, False, {}), number) for number in range(10)]
    filling = writer(session)
    filling.write(*columns(rows))
    filling.write(*columns(rows, first=5))
    assert filling.expects_new
    filling.write(*columns(rows, first=6))
    assert not filling.expects_new


def test_commands_are_those_that_the_client_would_send() -> None:
    keys, rows = columns([b"", b"\x00\r\n", b"x" * 1_000, "ä".encode()])
    expected = [
        packed
        for one, other in zip(keys.to_pylist(), rows.to_pylist(), strict=True)
        for packed in Connection().pack_command("HSETNX", one, FIELD, other)
    ]
    assert bytes(new_rows_commands(keys, rows, FIELD)) == b"".join(expected)
    assert bytes(new_rows_commands(keys[1:3], rows[1:3], FIELD)) == b"".join(expected[1:3])


def test_only_what_fits_goes_without_the_script(session: RedisSession) -> None:
    session.client.flushall()
    rows = [row(WrittenRow(5_000, None, False, {}), 1)]
    writer(session, key_ttl_seconds=60).write(*columns(rows))
    assert 0 < session.client.ttl(key(0)) <= 60
    for size, is_scripted in ((BULK_BYTES_MAX, False), (BULK_BYTES_MAX + 1, True)):
        session.client.flushall()
        session.client.config_resetstat()
        keys = pa.array([key(0)], pa.binary())
        filler = bytes(size - keys.nbytes - pa.array([rows[0]], pa.binary()).nbytes)
        writer(session).write(keys, pa.array([rows[0] + filler], pa.binary()))
        assert ("cmdstat_evalsha" in session.client.info("commandstats")) == is_scripted
        assert session.client.hstrlen(key(0), FIELD) == len(rows[0]) + len(filler)


@pytest.mark.parametrize("after_bytes", [0, 2, 402])
def test_a_connection_that_breaks_midway_costs_no_row(tcp_server: RedisServer, after_bytes: int) -> None:
    tcp_server.client().flushall()
    rows = [row(WrittenRow(5_000, None, False, {}), number) for number in range(1_000)]
    with redis_proxy(tcp_server.port or 0) as proxy:
        session = session_at(f"{proxy.address},socket_timeout=5")
        session.client.ping()
        with pytest.MonkeyPatch.context() as patch:
            broken = []

            def replies(*arguments: object) -> object:
                proxy.cut_answers(after_bytes)
                try:
                    return bulk_replies(*arguments)
                except (OSError, RedisConnectionError):
                    broken.append(True)
                    raise
                finally:
                    proxy.pass_on()

            bulk_replies = bulk._replies
            patch.setattr(bulk, "_replies", replies)
            writer(session).write(*columns(rows))
        assert broken
        session.close()
    assert [tcp_server.client().hget(key(number), FIELD) for number in range(1_000)] == rows


def test_a_full_redis_is_said_to_be_full_and_no_reply_is_left_for_another(tmp_path: Path) -> None:
    with private_redis_tcp(tmp_path, "--maxmemory", "1500kb") as server:
        session = session_at(server.address)
        rows = [row(WrittenRow(5_000, None, False, {}), number) for number in range(20_000)]
        with pytest.raises(OnlineStoreError, match="is full"):
            writer(session).write(*columns(rows))
        assert session.client.ping() is True
        standing = server.client().dbsize() - 1
        assert 0 < standing < len(rows)
        session.close()
