"""Windowed views in Redis: what is said to read their tiles, and to apply a stream's events to them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from store.errors import OnlineStoreError, StoredRowError
from store.kernel import keys
from store.kernel.definitions import ViewDefinition
from store.kernel.stream_tiles import (
    APPLIED,
    Change,
    Moment,
    StreamEvent,
    changed,
    fresh_events,
    needs_settling,
    wanted_fields,
)
from store.kernel.tiles import GRACE_US, Seam, TilePlan
from store.kernel.windows import Function, WindowFeature, input_columns
from store.limits import STREAM_KEYS_AT_ONCE, STREAM_SCRIPT_KEYS_MAX
from store.online.commands import Command
from store.online.conversations import Conversation, Generations, Knowledge, SlotOf, chunks, script
from store.online.newest import raise_newest

_ATTEMPTS_MAX = 5
"""Somebody else changes a key's tiles in the same instant only where two workers believe to own its partition."""

Events = Mapping[bytes, Sequence[StreamEvent]]
"""By entity key the events to apply, in the order of the log."""


class WindowState(NamedTuple):
    """Which tiles of a windowed view are read.

    Attributes:
        generation: of the materialization in force.
        fingerprint: of the definition that it follows, "" where there was none.
        seam: where it ends, None where there was none.
        known_us: the clock's instant at which it began, None where there was none.
        files: which files of the source it read, as `SeenFiles` says it.
    """

    generation: int = 1
    fingerprint: str = ""
    seam: Seam | None = None
    known_us: int | None = None
    files: str = ""

    def stream_fingerprint(self, view: "WindowedView") -> str:
        """Returns the fingerprint of the definition whose stream tiles go with the materialization in force."""
        return self.fingerprint or view.fingerprint

    @staticmethod
    def parse(raw: Sequence[bytes | None]) -> "WindowState":
        """Returns what the fields of `ask_windows` say of one view."""
        return _parsed(*raw)


class WindowedView(NamedTuple):
    """What reading a windowed view needs of its definition, made once."""

    name: str
    fingerprint: str
    plan: TilePlan

    @classmethod
    def of(cls, definition: ViewDefinition) -> "WindowedView":
        """Returns it of a definition."""
        return cls(definition.name, definition.fingerprint, tile_plan(definition))


@lru_cache(maxsize=1_024)
def _parsed(generation: bytes | None, state: bytes | None) -> WindowState:
    known: dict[str, Any] = {} if state is None else msgspec.json.decode(state)
    seam = Seam(*known["seam"]) if known.get("seam") else None
    active = Generations.parse(generation).active
    return WindowState(active, known.get("fingerprint", ""), seam, known.get("known_us"), known.get("files", ""))


@lru_cache(maxsize=1_024)
def ask_windows(project: str, views: tuple[str, ...]) -> Command:
    """Returns the command that asks which tiles of some views are in force: two fields a view."""
    fields = [field for view in views for field in (keys.generation_field(view), keys.state_field(view))]
    return ("HMGET", keys.views_key(project), *fields)


@lru_cache(maxsize=256)
def tile_plan(definition: ViewDefinition) -> TilePlan:
    """Returns the plan of a windowed view's tiles."""
    return TilePlan.of(definition.windows)


def definition_text(definition: ViewDefinition) -> bytes:
    """Returns what is kept of a definition beside its tiles, for readers that know another one."""
    return msgspec.json.encode(
        [[f.name, f.column, *f.function, f.window_us, f.hop_us, f.type_name] for f in definition.windows]
    )


def keep_definition(definition: ViewDefinition) -> Command:
    """Returns the command that keeps a definition beside the tiles that follow it."""
    return ("HSET", keys.layouts_key(definition.project), definition.fingerprint, definition_text(definition))


def load_plan(knowledge: Knowledge, fingerprint: str) -> Conversation[TilePlan]:
    """Returns the plan of tiles that follow an earlier definition.

    Raises:
        StoredRowError: it is not kept, as after a partial restore.
    """
    plan = knowledge.tile_plans.get(fingerprint)
    if plan is None:
        (raw,) = yield [("HGET", keys.layouts_key(knowledge.project), fingerprint)]
        if raw is None:
            raise StoredRowError(
                f"tiles of project {knowledge.project!r} follow definition {fingerprint}, which is not in Redis; "
                "restore the whole backup or materialize the views again"
            )
        features = [
            WindowFeature(name, column, Function(function, parameter), window_us, hop_us, type_name)
            for name, column, function, parameter, window_us, hop_us, type_name in msgspec.json.decode(raw)
        ]
        plan = knowledge.tile_plans[fingerprint] = TilePlan.of(features)
    return plan


def expiry_ms(plan: TilePlan, key_ttl_seconds: int | None) -> int:
    """Returns the milliseconds after which tiles are over that hold nothing newer than now."""
    own_ms = (plan.reach_us + 2 * GRACE_US) // 1_000
    return own_ms if key_ttl_seconds is None else min(own_ms, 1_000 * key_ttl_seconds)


def apply_stream(
    knowledge: Knowledge,
    definition: ViewDefinition,
    events: Events,
    *,
    line_id: int,
    now_us: int,
    key_ttl_seconds: int | None = None,
    slot_of: SlotOf | None = None,
) -> Conversation[int]:
    """Applies events to the tiles of a windowed view, each once however often it is said; returns how many were new.

    Until a changed definition has been built, lookups read tiles by the earlier one: these get the events too, as long
    as the events still have the columns for it.

    Args:
        line_id: the last line drawn for the view in the events' partition, 0 for none.
        now_us: the clock's instant.
    """
    view = WindowedView.of(definition)
    remaining = iter(events.items())
    applied = 0
    while batch := dict(islice(remaining, STREAM_KEYS_AT_ONCE)):
        state = knowledge.windows.get(view.name, WindowState())
        applying = _Applying(knowledge, view, _moment(view, state, now_us, line_id), key_ttl_seconds, slot_of)
        applied += yield from applying.apply(batch)
        state = knowledge.windows[view.name]
        if state.fingerprint not in ("", view.fingerprint):
            earlier = WindowedView(view.name, state.fingerprint, (yield from load_plan(knowledge, state.fingerprint)))
            if fitted := _for_plan(batch, view.plan, earlier.plan):
                moment = _moment(earlier, state, now_us, line_id)
                yield from _Applying(knowledge, earlier, moment, key_ttl_seconds, slot_of).apply(fitted)
    return applied


def _moment(view: WindowedView, state: WindowState, now_us: int, line_id: int) -> Moment:
    return Moment.of(view.plan, now_us, line_id, state.seam if state.fingerprint == view.fingerprint else None)


def _for_plan(events: Events, given: TilePlan, wanted: TilePlan) -> Events:
    """Returns events with the columns of another plan; none where they lack one."""
    columns = input_columns(given.features)
    try:
        places = [columns.index(name) for name in input_columns(wanted.features)]
    except ValueError:
        return {}
    return {
        key: [event._replace(values=tuple(event.values[place] for place in places)) for event in of_key]
        for key, of_key in events.items()
    }


class _Applying:
    """Applies events to some keys' tiles."""

    def __init__(
        self,
        knowledge: Knowledge,
        view: WindowedView,
        moment: Moment,
        key_ttl_seconds: int | None,
        slot_of: SlotOf | None,
    ) -> None:
        self._knowledge = knowledge
        self._view, self._fingerprint = view.name, view.fingerprint
        self._moment = moment
        self._expiry = expiry_ms(view.plan, key_ttl_seconds)
        self._slot_of = slot_of

    def apply(self, events: Events) -> Conversation[int]:
        """Applies events of a bounded number of keys."""
        tiles = {self._tiles_key(entity_key): of_key for entity_key, of_key in events.items()}
        ask = ask_windows(self._knowledge.project, (self._view,))
        applied = 0
        for _ in range(_ATTEMPTS_MAX):
            wanted = {key: wanted_fields(self._moment, of_key) for key, of_key in tiles.items()}
            *replies, state = yield [*(("HMGET", key, *fields) for key, fields in wanted.items()), ask]
            # A seam that has just moved is told from now on; to have taken the one before does no harm, since events
            # before it are on its side of either.
            self._knowledge.windows[self._view] = WindowState.parse(state)
            known = {
                key: dict(zip(wanted[key], reply, strict=True)) for key, reply in zip(wanted, replies, strict=True)
            }
            whole = yield from self._read_whole(known, tiles)
            changes = {}
            for key, of_key in tiles.items():
                fields = whole.get(key, known[key])
                change = changed(self._moment, fields, of_key, is_whole=key in whole)
                if change is not None:
                    changes[key] = change, len(fresh_events(fields.get(APPLIED), of_key))
            if not changes:
                return applied
            newest_us = max(event.event_us for key in changes for event in tiles[key])
            refused = yield from self._write({key: change for key, (change, _) in changes.items()}, newest_us)
            applied += sum(count for key, (_, count) in changes.items() if key not in refused)
            tiles = {key: of_key for key, of_key in tiles.items() if key in refused}
            if not tiles:
                return applied
        raise OnlineStoreError(
            f"tiles of feature view {self._view!r} were changed by others {_ATTEMPTS_MAX} times within one "
            "batch of events; see that each partition has one worker"
        )

    def _read_whole(
        self, known: Mapping[bytes, Mapping[bytes, bytes | None]], tiles: Mapping[bytes, Sequence[StreamEvent]]
    ) -> Conversation[dict[bytes, dict[bytes, bytes | None]]]:
        """Returns all fields of those keys whose tiles are due to be settled."""
        due = [
            key
            for key, fields in known.items()
            if needs_settling(self._moment, fields[APPLIED]) and fresh_events(fields[APPLIED], tiles[key])
        ]
        if not due:
            return {}
        replies = yield [("HGETALL", key) for key in due]
        return {key: _pairs(reply) for key, reply in zip(due, replies, strict=True)}

    def _write(self, changes: Mapping[bytes, Change], newest_us: int) -> Conversation[set[bytes]]:
        """Makes changes, and returns the keys of those that came too late."""
        batches = list(self._batches(changes))
        raised = raise_newest(self._knowledge.project, [keys.stream_member(self._view, self._fingerprint)], newest_us)
        *replies, _ = yield [*(command for _, command in batches), raised]
        return {
            key
            for (of_call, _), reply in zip(batches, replies, strict=True)
            for key, is_changed in zip(of_call, reply, strict=True)
            if not is_changed
        }

    def _batches(self, changes: Mapping[bytes, Change]) -> Iterator[tuple[list[bytes], Command]]:
        _, digest = script("tiles")
        for chunk in chunks([(key, b"") for key in changes], self._slot_of, STREAM_SCRIPT_KEYS_MAX):
            of_call = [key for key, _ in chunk]
            arguments: list[Any] = [self._expiry]
            for key in of_call:
                change = changes[key]
                arguments += [change.expected, int(change.is_settled), len(change.fields) + 1, APPLIED, change.applied]
                for name, value in change.fields.items():
                    arguments += (name, value)
            yield of_call, ("EVALSHA", digest, len(of_call), *of_call, *arguments)

    def _tiles_key(self, entity_key: bytes) -> bytes:
        return keys.stream_tiles_key(entity_key, self._view, self._fingerprint)


def _pairs(reply: Any) -> dict[bytes, bytes | None]:
    """Returns the answer to HGETALL as a mapping, in whichever of its forms the client gives it."""
    return dict(reply) if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
