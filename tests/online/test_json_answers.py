"""Event times and commands in the forms that others read: protobuf's JSON and Redis' protocol."""

import hiredis
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from store.clock import EARLIEST_US, LATEST_US
from store.online.commands import RowReads, packed
from store.online.json_answers import times_json
from store.online.stored_rows import EventTimes

instants_us = st.integers(EARLIEST_US, LATEST_US)
# Whole seconds and milliseconds are written with fewer decimals.
rounded_us = st.builds(
    lambda us, unit: max(us // unit * unit, EARLIEST_US), instants_us, st.sampled_from([1_000, 10**6])
)


def protobuf_text(us: int, ns: int) -> str:
    """Returns what protobuf writes, whose JSON Feast's server answers."""
    seconds, micros = divmod(us, 1_000_000)
    return str(Timestamp(seconds=seconds, nanos=micros * 1_000 + ns).ToJsonString())


@given(st.lists(instants_us | rounded_us, max_size=40))
def test_times_are_written_as_protobuf_writes_them(us: list[int]) -> None:
    assert json.decode(times_json(EventTimes(us))) == [protobuf_text(each, 0) for each in us]


@given(st.lists(st.tuples(st.none() | instants_us | rounded_us, st.integers(0, 999)), max_size=40))
def test_times_with_nanoseconds_or_without_a_row_are_written_too(times: list[tuple[int | None, int]]) -> None:
    expected = [None if us is None else protobuf_text(us, ns) for us, ns in times]
    found = times_json(EventTimes([us for us, _ in times], [0 if us is None else ns for us, ns in times]))
    assert json.decode(found) == expected


@pytest.mark.parametrize("us", [EARLIEST_US - 1, LATEST_US + 1])
@pytest.mark.parametrize("count", [0, 40])
def test_a_time_that_cannot_be_written_costs_no_other_one(us: int, count: int) -> None:
    found = json.decode(times_json(EventTimes([us] + [0] * count)))
    assert found == [None] + ["1970-01-01T00:00:00Z"] * count


names = st.binary(max_size=8)


@given(
    st.lists(st.tuples(st.lists(names, max_size=4), st.lists(names, max_size=3).map(tuple)), max_size=3),
    st.lists(names, min_size=1, max_size=3),
)
def test_row_reads_are_packed_as_redis_own_client_packs_them(
    reads: list[tuple[list[bytes], tuple[bytes, ...]]], asked: list[bytes]
) -> None:
    batch = RowReads(reads, ("HMGET", *asked))
    commands = list(batch)
    assert commands == [("HMGET", key, *fields) for keys, fields in reads for key in keys] + [("HMGET", *asked)]
    assert len(batch) == len(commands)
    assert packed(batch) == packed(commands) == b"".join(hiredis.pack_command(command) for command in commands)
