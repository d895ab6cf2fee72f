"""What is said to Redis, as generators that yield batches of commands and take the replies: no client in here.

A conversation yields a list of commands, each a tuple of the command and its arguments, is sent the list of
replies, and returns its result. The same conversation is held by the sync and the async client
(`store.online.client`). One batch is one round trip.

Whoever reads or writes rows asks afterwards which generation of each view is in force. If the answer is the one
that was assumed, no generation was switched before the rows were touched; else the batch is said again for the new
one. One Redis answers a batch in order, so the question stands at the batch's end and costs no round trip. The nodes
of a cluster do not wait for each other, so there the question is a batch of its own after a write, and after a read
that missed a row.
"""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from store.errors import MaterializationBusy, OnlineStoreError, StoredRowError
from store.kernel import keys
from store.kernel.codec import BIAS_US, EVENT_TIME, SCHEMA_TAGS, RowLayout
from store.kernel.coverage import Interval, ViewState
from store.kernel.tiles import Seam, TilePlan
from store.limits import PIPELINE_CALLS_MAX, SCRIPT_ROWS_MAX
from store.online.commands import Command, RowReads
from store.online.newest import forget_newest, raise_newest

Result = TypeVar("Result")
Topic = TypeVar("Topic")
Conversation = Generator[Sequence[Command], list[Any], Result]
SlotOf = Callable[[bytes], int]

_ATTEMPTS_MAX = 5
"""A generation is switched once per rebuild of a view, so a second switch within one request is already unheard of."""


class Generations(NamedTuple):
    """Which generation of a view is read, and which one is being built (0: none)."""

    active: int = 1
    building: int = 0

    @staticmethod
    @lru_cache(maxsize=1_024)
    def parse(raw: bytes | None) -> "Generations":
        """Returns what the generation field says: `3`, or `3+4` while 4 is being built; nothing stands for 1."""
        if raw is None:
            return Generations()
        active, _, building = raw.partition(b"+")
        return Generations(int(active), int(building or 0))

    def format(self) -> bytes:
        """Returns the content of the generation field."""
        return b"%d+%d" % self if self.building else b"%d" % self.active

    def fields(self, view: str) -> list[bytes]:
        """Returns the hash fields that a push has to write: that of the one read and of the one being built."""
        return [keys.row_field(view, generation) for generation in self if generation]


_FIRST = Generations()


@dataclass(slots=True)
class Knowledge:
    """What a process has learnt from Redis of one project, kept between conversations: a cache, checked at each use.

    Many conversations use it at once, so each compares Redis' answers with what it assumed itself.
    `is_ordered`: one Redis answers all commands, in the order of a batch.
    """

    project: str
    is_ordered: bool = True
    generations: dict[str, Generations] = field(default_factory=dict)
    layouts: dict[int, RowLayout] = field(default_factory=dict)
    windows: dict[str, Any] = field(default_factory=dict)
    """By windowed view the last known `store.online.windows.WindowState`."""
    tile_plans: dict[str, TilePlan] = field(default_factory=dict)
    """By fingerprint what earlier definitions of windowed views say of their tiles."""

    def generations_of(self, view: str) -> Generations:
        """Returns the last known generations of a view."""
        return self.generations.get(view, _FIRST)


@cache
def script(name: str) -> tuple[str, str]:
    """Returns the text of a Lua script and its SHA-1, by which Redis is asked to run it."""
    folder = files("store.online") / "lua"
    text = (folder / "order.lua").read_text() + (folder / f"{name}.lua").read_text()
    return text, sha1(text.encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=1_024)
def ask_generations(project: str, views: tuple[str, ...]) -> Command:
    """Returns the command that asks which generations of some views are in force."""
    return ("HMGET", keys.views_key(project), *(keys.generation_field(view) for view in views))


def together(conversations: Mapping[Topic, Conversation[Any]]) -> Conversation[dict[Topic, Exception | None]]:
    """Holds several conversations in the same round trips, which are as many as the longest of them has.

    What is wrong with one of them is no business of the others: each goes on to its end. Where a batch itself fails, it
    fails for all.

    Returns:
        What each of them raised, None where it came to its end.
    """
    raised: dict[Topic, Exception | None] = {}
    replies: dict[Topic, Any] = dict.fromkeys(conversations)
    try:
        while replies:
            said: dict[Topic, Sequence[Command]] = {}
            for topic, reply in replies.items():
                try:
                    said[topic] = conversations[topic].send(reply)
                except StopIteration:
                    raised[topic] = None
                except Exception as error:  # noqa: BLE001 - the caller is told, and knows what may be wrong
                    raised[topic] = error
            if not said:
                break
            answers = iter((yield [command for commands in said.values() for command in commands]))
            replies = {topic: list(islice(answers, len(commands))) for topic, commands in said.items()}
    finally:
        for conversation in conversations.values():
            conversation.close()
    return raised


def try_reading(project: str) -> Conversation[None]:
    """Reads as little as can be read, where a PING would say too little or too much.

    A replica that has lost its master answers a PING and no read; a Redis that cannot save refuses a PING and reads.
    """
    yield [("EXISTS", keys.views_key(project))]


def read_rows(
    knowledge: Knowledge, wanted: Sequence[tuple[Sequence[bytes], tuple[str, ...]]]
) -> Conversation[list[list[bytes | None]]]:
    """Returns the stored rows of some entity keys, in one round trip unless a generation was switched meanwhile.

    Args:
        knowledge: what is known of the project; updated.
        wanted: pairs (entity keys, views to read for each of them).

    Shapes: one list per entity key, holding one row per view, None where there is none.
    """
    if not any(entity_keys for entity_keys, _ in wanted):
        return []
    views = all_views(tuple([views for _, views in wanted]))
    ask = ask_generations(knowledge.project, views)
    for _ in range(_ATTEMPTS_MAX):
        assumed = [knowledge.generations_of(view) for view in views]
        *rows, answer = yield RowReads(
            [(entity_keys, row_fields(knowledge, views)) for entity_keys, views in wanted], ask
        )
        if not knowledge.is_ordered and any(None in row for row in rows):
            (answer,) = yield [ask]
        actual = learn(knowledge, views, answer)
        if actual == assumed or [now.active for now in actual] == [then.active for then in assumed]:
            return rows
    raise _restless(views)


@lru_cache(maxsize=1_024)
def all_views(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """Returns the views of all groups, each once."""
    return tuple(dict.fromkeys(view for views in groups for view in views))


def row_fields(knowledge: Knowledge, views: tuple[str, ...]) -> tuple[bytes, ...]:
    """Returns the hash fields that hold the rows of some views, as far as is known."""
    return tuple([keys.row_field(view, knowledge.generations_of(view).active) for view in views])


def write_rows(
    knowledge: Knowledge, view: str, rows: Iterable[tuple[bytes, bytes]], writing: "Writing"
) -> Conversation[int]:
    """Writes rows into the generation that is read, and into the one being built if there is one.

    Returns:
        How many rows replaced what stood there; a row older than the stored one does not.
    """
    written = 0
    remaining = iter(rows)
    while batch := list(islice(remaining, SCRIPT_ROWS_MAX * PIPELINE_CALLS_MAX)):
        newest_us = int.from_bytes(max([row[EVENT_TIME] for _, row in batch]), "big") - BIAS_US
        for _ in range(_ATTEMPTS_MAX):
            assumed = knowledge.generations_of(view)
            fields = assumed.fields(view)
            calls = [call for field in fields for call in write_calls(field, batch, writing)]
            raised = raise_newest(knowledge.project, fields, newest_us)
            ask = ask_generations(knowledge.project, (view,))
            *replies, answer = yield [*calls, raised, writing.assure_layout(knowledge.project), ask]
            if not knowledge.is_ordered:
                (answer,) = yield [ask]
            (actual,) = learn(knowledge, [view], answer)
            if actual == assumed:
                written += sum(replies[: len(calls) // len(fields)])
                break
            if stray := [field for field in fields if field not in actual.fields(view)]:
                # What has just gone into a generation that is no longer in force would lie there for ever.
                yield [*(("HDEL", key, *stray) for key, _ in batch), forget_newest(knowledge.project, stray)]
        else:
            raise _restless([view])
    return written


def write_generation(
    project: str, field: bytes, rows: Sequence[tuple[bytes, bytes]], writing: "Writing"
) -> Conversation[None]:
    """Writes rows of a batch run into the generation that it fills."""
    calls = list(write_calls(field, rows, writing))
    for start in range(0, len(calls), PIPELINE_CALLS_MAX):
        yield [*calls[start : start + PIPELINE_CALLS_MAX], writing.assure_layout(project)]


@dataclass(frozen=True, slots=True)
class Writing:
    """How rows are written: their layout, seconds until an entity key expires (None: never), a cluster's slots."""

    schema_tag: int
    layout: RowLayout
    key_ttl_seconds: int | None = None
    slot_of: SlotOf | None = None

    def assure_layout(self, project: str) -> Command:
        """Returns the command that puts the layout beside the rows again, should Redis have been emptied."""
        return ("HSETNX", keys.layouts_key(project), self.schema_tag, self.layout.text)


def write_calls(field: bytes, rows: Sequence[tuple[bytes, bytes]], writing: Writing) -> Iterator[Command]:
    """Yields the script calls that write rows into one hash field, each within one slot and of bounded length."""
    _, digest = script("write")
    expiry = "" if writing.key_ttl_seconds is None else writing.key_ttl_seconds
    for chunk in chunks(rows, writing.slot_of):
        yield ("EVALSHA", digest, len(chunk), *(key for key, _ in chunk), field, expiry, *(row for _, row in chunk))


def chunks(
    rows: Sequence[tuple[bytes, bytes]], slot_of: SlotOf | None, most: int = SCRIPT_ROWS_MAX
) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    """Yields runs of at most `most` rows; on a cluster the keys of one run share a slot."""
    groups: Iterable[Sequence[tuple[bytes, bytes]]] = [rows]
    if slot_of is not None:
        by_slot: dict[int, list[tuple[bytes, bytes]]] = {}
        for row in rows:
            by_slot.setdefault(slot_of(row[0]), []).append(row)
        groups = by_slot.values()
    for group in groups:
        for start in range(0, len(group), most):
            yield group[start : start + most]


def register_layout(knowledge: Knowledge, layout: RowLayout) -> Conversation[int]:
    """Keeps a layout beside the rows, if it is not there, and returns the schema tag that its rows carry.

    Two layouts whose hashes collide get different tags: the second takes the next free number.
    """
    tag = layout.tag
    key = keys.layouts_key(knowledge.project)
    while True:
        if (known := knowledge.layouts.get(tag)) is None:
            text = layout.text.encode()
            _, stored = yield [("HSETNX", key, tag, text), ("HGET", key, tag)]
            known = knowledge.layouts[tag] = RowLayout.parse(stored.decode())
        if known == layout:
            return tag
        tag = (tag + 1) % SCHEMA_TAGS
        if tag == layout.tag:
            raise OnlineStoreError(
                f"project {knowledge.project!r} has {SCHEMA_TAGS} row layouts, which is all that rows can tell apart; "
                "tear it down, apply it again and materialize it"
            )


def load_layouts(knowledge: Knowledge, tags: Iterable[int]) -> Conversation[None]:
    """Learns the layouts behind schema tags that are not yet known.

    Raises:
        StoredRowError: a tag without a layout, as after a partial restore.
    """
    unknown = [tag for tag in tags if tag not in knowledge.layouts]
    if not unknown:
        return
    (texts,) = yield [("HMGET", keys.layouts_key(knowledge.project), *unknown)]
    for tag, text in zip(unknown, texts, strict=True):
        if text is None:
            raise StoredRowError(
                f"rows of project {knowledge.project!r} carry schema tag {tag}, whose layout is not in Redis; "
                "restore the whole backup or materialize the views again"
            )
        knowledge.layouts[tag] = RowLayout.parse(text.decode())


@dataclass(frozen=True, slots=True)
class KnownState:
    """What Redis holds of a view, and the very bytes that say so, by which a change notices another change."""

    state: ViewState
    generation_text: bytes = b""
    state_text: bytes = b""


def read_state(project: str, view: str) -> Conversation[KnownState]:
    """Returns what Redis holds of a view's generations and coverage; a fresh state where it holds nothing."""
    fields = (keys.generation_field(view), keys.state_field(view))
    ((generation, kept),) = yield [("HMGET", keys.views_key(project), *fields)]
    generations = Generations.parse(generation)
    known = json.loads(kept) if kept else {}
    state = ViewState(
        generation=generations.active,
        building=generations.building,
        fingerprint=known.get("fingerprint", ""),
        coverage=tuple(Interval(*interval) for interval in known.get("coverage", ())),
        cleaned_below=known.get("cleaned_below", 1),
        known_us=known.get("known_us"),
        seam=Seam(*known["seam"]) if known.get("seam") else None,
        files=known.get("files", ""),
    )
    return KnownState(state, generation or b"", kept or b"")


def replace_state(project: str, view: str, before: KnownState, state: ViewState) -> Conversation[KnownState]:
    """Replaces what Redis holds of a view, generations and coverage in one atomic step: this switches a generation.

    Raises:
        MaterializationBusy: it is no longer what it was when it was read; nothing was replaced.
    """
    _, digest = script("switch")
    generation_text = Generations(state.generation, state.building).format()
    kept: dict[str, object] = {
        "fingerprint": state.fingerprint,
        "coverage": state.coverage,
        "cleaned_below": state.cleaned_below,
        "known_us": state.known_us,
    }
    if state.seam is not None:
        kept |= {"seam": state.seam, "files": state.files}
    state_text = json.dumps(kept).encode()
    generation_change = (keys.generation_field(view), before.generation_text, generation_text)
    state_change = (keys.state_field(view), before.state_text, state_text)
    (is_replaced,) = yield [("EVALSHA", digest, 1, keys.views_key(project), *generation_change, *state_change)]
    if not is_replaced:
        raise MaterializationBusy(
            f"feature view {view!r} was changed by another run while this one ran; run it again if it is still needed"
        )
    return KnownState(state, generation_text, state_text)


def next_generation(project: str, view: str) -> Conversation[int]:
    """Returns a generation number that no run of the view has had."""
    (count,) = yield [("HINCRBY", keys.views_key(project), keys.counter_field(view), 1)]
    return 1 + int(count)


def last_generation(project: str, view: str) -> Conversation[int]:
    """Returns the highest generation number that any run of the view has had."""
    ((count,),) = yield [("HMGET", keys.views_key(project), keys.counter_field(view))]
    return 1 + int(count or 0)


def learn(knowledge: Knowledge, views: Sequence[str], answer: Sequence[bytes | None]) -> list[Generations]:
    """Takes in which generations are in force, and returns them."""
    actual = [Generations.parse(raw) for raw in answer]
    knowledge.generations.update(zip(views, actual, strict=True))
    return actual


def _restless(views: Sequence[str]) -> OnlineStoreError:
    return OnlineStoreError(
        f"the generations of {list(views)!r} were switched {_ATTEMPTS_MAX} times within one request; try again"
    )
