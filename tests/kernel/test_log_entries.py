"""Entries of the log: what they say comes back, what is none is refused, and who does what falls out evenly."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import LogEntryError
from store.kernel.log_entries import (
    Events,
    Line,
    assigned,
    decode_entry,
    encode_events,
    encode_line,
    partition_of,
    row_ids,
)

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()


@st.composite
def events(draw: st.DrawFn) -> Events:
    rows = draw(st.integers(1, 5))
    of_rows = st.lists(VALUES, min_size=rows, max_size=rows)
    return Events(
        draw(st.text()),
        tuple(draw(st.lists(st.text(), max_size=2))),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.binary(min_size=8, max_size=8)),
        draw(st.lists(of_rows, min_size=1, max_size=4)),
        draw(st.none() | st.lists(st.integers(0, 2**53), min_size=rows, max_size=rows)),
    )


@given(events())
def test_what_an_entry_says_comes_back(said: Events) -> None:
    assert decode_entry(encode_events(said)) == said


def test_a_line_comes_back() -> None:
    assert decode_entry(encode_line("by_user")) == Line("by_user")


def test_the_format_is_the_one_that_was_stored() -> None:
    said = Events("clicks", ("user_id:INT64",), True, True, b"12345678", [[1, 2], ["a", None]])
    assert encode_events(said).hex() == (
        "970100a6636c69636b7391ad757365725f69643a494e54363403c4083132333435363738929201029 2a161c0".replace(" ", "")
    )


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x93\x01\x02", b"\x01", b"\x93\x02\x02\xa1v", b"\x94\x01\x05\xa1v\xa1w", b"{}"]
)
def test_what_is_no_entry_is_refused(content: bytes) -> None:
    with pytest.raises(LogEntryError):
        decode_entry(content)


def test_columns_of_unequal_length_are_refused() -> None:
    good = Events("clicks", (), True, True, b"", [[1, 2], [3, 4]])
    for bad in (good._replace(columns=[[1, 2], [3]]), good._replace(line_ids=[1]), good._replace(columns=[])):
        with pytest.raises(LogEntryError):
            decode_entry(encode_events(bad))


def test_partitions_of_keys_stay_what_they_are() -> None:
    assert [partition_of(b"key %d" % number, 8) for number in range(10)] == [6, 3, 0, 1, 0, 4, 4, 6, 2, 7]
    assert {partition_of(b"%d" % number, 8) for number in range(100)} == set(range(8))


def test_rows_have_the_ids_up_to_their_entrys() -> None:
    assert list(row_ids(10, 3)) == [8, 9, 10]


@given(
    st.sets(st.sampled_from("abcdef"), min_size=1),
    st.integers(1, 20),
    st.dictionaries(st.sampled_from("abcdef"), st.sets(st.integers(0, 19)), max_size=3),
)
def test_every_task_falls_to_one_worker_that_may_do_it(names: set[str], count: int, only: dict[str, Any]) -> None:
    workers = [f"{n}|{','.join(map(str, sorted(only[n])))}" if n in only else n for n in names]
    tasks = [*map(str, range(count)), "inbox:clicks"]
    shares = {worker: assigned(worker, workers, tasks) for worker in workers}
    for task in tasks:
        able = [
            w
            for n, w in zip(names, workers, strict=True)
            if task == "inbox:clicks" or int(task) in only.get(n, range(20))
        ]
        assert sum(task in share for share in shares.values()) == (1 if able else 0)
        assert all(worker in able for worker, share in shares.items() if task in share)
    if not only:
        sizes = [len(share) for share in shares.values()]
        assert max(sizes) - min(sizes) <= 1
