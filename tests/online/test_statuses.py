"""The status of each value against a plain model: missing, null, too old or present, to the microsecond."""

from hypothesis import given
from hypothesis import strategies as st

from store.kernel.codec import RowLayout, RowTimes, encode_header
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.keys import entity_key_encoder
from store.online.conversations import Knowledge
from store.online.lookup import NOT_FOUND, read_row
from store.online.plan import ViewRead
from tests.oracles.rows import WrittenRow, status

WANTED = (Column("a", "INT64"), Column("b", "STRING"), Column("c", "DOUBLE"))
VALUES = {"a": st.integers(-5, 5), "b": st.text(max_size=2), "c": st.floats(allow_nan=False)}


@st.composite
def stored_values(draw: st.DrawFn) -> dict[str, object]:
    """The features that a row was written with, some of them null; others are missing from it."""
    names = draw(st.sets(st.sampled_from(sorted(VALUES))))
    return {name: draw(st.none() | VALUES[name]) for name in names}


# Instants and ages of a few microseconds, so that every case meets the bound of the ttl often.
small_us = st.integers(0, 4)


@given(st.none() | stored_values(), small_us, st.integers(0, 999), small_us, small_us)
def test_statuses_are_those_of_the_model(
    values: dict[str, object] | None, event_us: int, event_ns: int, ttl_us: int, age_us: int
) -> None:
    now_us = event_us + age_us
    definition = ViewDefinition("p", "v", (), WANTED, ttl_us, None)
    read = ViewRead("v", definition, entity_key_encoder("p", ()), (), WANTED, (0, 1, 2), ttl_us, 0)
    knowledge = Knowledge("p")
    raw, written = None, None
    if values is not None:
        layout = RowLayout.of(column for column in WANTED if column.name in values)
        knowledge.layouts[layout.tag] = layout
        body = layout.encoder()([values[column.name] for column in layout.columns])
        raw = encode_header(layout.tag, RowTimes(event_us, event_ns), is_pushed=False) + body
        written = WrittenRow(event_us * 1_000 + event_ns, None, is_pushed=False, values=values)
    row = read_row(read, raw, knowledge, now_us)
    expected = [status(written, column.name, ttl_us * 1_000, now_us * 1_000) for column in WANTED]
    if row is None:
        assert {found for found, _ in expected} == {NOT_FOUND}
    else:
        assert list(zip(row.statuses, row.values, strict=True)) == expected
