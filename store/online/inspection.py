"""One stored row with all that Redis knows of it, read the way that lookups read it."""

from dataclasses import dataclass

from store.kernel.codec import Header, RowLayout, decode_header
from store.online.conversations import Conversation, Knowledge, KnownState, load_layouts, read_rows, read_state
from store.online.plan import ViewRead
from store.online.stored_rows import Row, read_row


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A stored row: what a lookup makes of it, and what lookups do not tell.

    `expires_in_ms` is what is left of its key's time to live, None for a key without one.
    """

    row: Row
    header: Header
    layout: RowLayout
    stored_bytes: int
    expires_in_ms: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What Redis holds of one entity key of a view (no row: None) and of the view itself."""

    stored: StoredRow | None
    generation: int
    view: KnownState


def inspect(knowledge: Knowledge, read: ViewRead, key: bytes, at_us: int) -> Conversation[Inspection]:
    """Returns what is stored under one entity key for a view, and what its row says to a lookup at a time.

    Raises:
        StoredRowError: a row of a format or layout that this version does not know.
    """
    view = read.definition.name
    ((raw,),) = yield from read_rows(knowledge, [([key], (view,))])
    generation = knowledge.generations_of(view).active
    known = yield from read_state(knowledge.project, view)
    if raw is None:
        return Inspection(None, generation, known)
    header = decode_header(raw)
    yield from load_layouts(knowledge, [header.schema_tag])
    row = read_row(read, raw, knowledge, at_us)
    assert row is not None, "there is a row to read"
    (left_ms,) = yield [("PTTL", key)]
    stored = StoredRow(row, header, knowledge.layouts[header.schema_tag], len(raw), left_ms if left_ms >= 0 else None)
    return Inspection(stored, generation, known)
