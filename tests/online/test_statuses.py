"""The status of each value against a plain model: missing, null, too old or present, to the microsecond."""

from hypothesis import given
from hypothesis import strategies as st

from store.kernel.codec import RowLayout, RowTimes, encode_row
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.keys import entity_key_encoder
from store.online.conversations import Knowledge
from store.online.plan import ViewRead
from store.online.stored_rows import NOT_FOUND, ViewRows, read_row, read_view
from tests.oracles.rows import WrittenRow, status

WANTED = (Column("a", "INT64"), Column("b", "STRING"), Column("c", "DOUBLE"))
VALUES = {"a": st.integers(-5, 5), "b": st.text(max_size=2), "c": st.floats(allow_nan=False)}


@st.composite
def stored_values(draw: st.DrawFn) -> dict[str, object]:
    """The features that a row was written with, some of them null; others are missing from it."""
    names = draw(st.sets(st.sampled_from(sorted(VALUES))))
    return {name: draw(st.none() | VALUES[name]) for name in names}


def whole_values() -> st.SearchStrategy[dict[str, object]]:
    """All features, none of them null, as most rows are."""
    return st.fixed_dictionaries(VALUES)


def stored(knowledge: Knowledge, values: dict[str, object], event_us: int, event_ns: int) -> bytes:
    """Returns a row as it is stored."""
    layout = RowLayout.of(column for column in WANTED if column.name in values)
    knowledge.layouts[layout.tag] = layout
    body = layout.encoder()([values[column.name] for column in layout.columns])
    return encode_row(layout.tag, RowTimes(event_us, event_ns), body, is_pushed=False)


NO_KEYS = entity_key_encoder("p", ())
# Instants and ages of a few microseconds, so that every case meets the bound of the ttl often.
small_us = st.integers(0, 4)


@given(st.none() | stored_values(), small_us, st.integers(0, 999), small_us, small_us)
def test_statuses_are_those_of_the_model(
    values: dict[str, object] | None, event_us: int, event_ns: int, ttl_us: int, age_us: int
) -> None:
    now_us = event_us + age_us
    definition = ViewDefinition("p", "v", (), WANTED, ttl_us, None)
    read = ViewRead("v", definition, NO_KEYS, (), WANTED, ttl_us, 0)
    knowledge = Knowledge("p")
    raw, written = None, None
    if values is not None:
        raw = stored(knowledge, values, event_us, event_ns)
        written = WrittenRow(event_us * 1_000 + event_ns, None, is_pushed=False, values=values)
    row = read_row(read, raw, knowledge, now_us)
    expected = [status(written, column.name, ttl_us * 1_000, now_us * 1_000) for column in WANTED]
    if row is None:
        assert {found for found, _ in expected} == {NOT_FOUND}
    else:
        assert list(zip(row.statuses, row.values, strict=True)) == expected


@given(
    st.lists(st.tuples(st.none() | stored_values() | whole_values(), small_us, st.integers(0, 1)), max_size=40),
    small_us,
    small_us,
    st.data(),
)
def test_many_rows_say_what_each_says(
    rows: list[tuple[dict[str, object] | None, int, int]], ttl_us: int, now_us: int, data: st.DataObject
) -> None:
    read = ViewRead("v", ViewDefinition("p", "v", (), WANTED, ttl_us, None), NO_KEYS, (), WANTED, ttl_us, 0)
    knowledge = Knowledge("p")
    raw: list[bytes | None] = []
    written: list[WrittenRow | None] = []
    for values, event_us, event_ns in rows:
        raw.append(None if values is None else stored(knowledge, values, event_us, event_ns))
        event = event_us * 1_000 + event_ns
        written.append(None if values is None else WrittenRow(event, None, is_pushed=False, values=values))
    places = data.draw(st.lists(st.none() | st.integers(0, len(rows) - 1), max_size=50) if rows else st.just([None]))
    found = read_view(read, raw, knowledge, now_us)
    assert_same(found, written, ttl_us, now_us)
    assert_same(found.taken(places), [None if i is None else written[i] for i in places], ttl_us, now_us)


def assert_same(found: ViewRows, written: list[WrittenRow | None], ttl_us: int, now_us: int) -> None:
    """Compares rows with the model's, feature by feature."""
    ns = found.times.ns or [0] * len(written)
    told = [None if us is None else us * 1_000 + more for us, more in zip(found.times.us, ns, strict=True)]
    assert told == [None if row is None else row.event for row in written]
    for column, values, statuses in zip(WANTED, found.columns, found.statuses, strict=True):
        expected = [status(row, column.name, ttl_us * 1_000, now_us * 1_000) for row in written]
        assert list(zip(statuses, values, strict=True)) == expected
    if found.is_whole:
        assert {one for statuses in found.statuses for one in statuses} <= {"PRESENT"}
