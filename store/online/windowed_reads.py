"""Windowed views in a lookup: their tiles come in the round trip of the rows, and are merged up to the request time."""

from collections.abc import Sequence
from typing import NamedTuple

from store.errors import OnlineStoreError, StoredRowError
from store.kernel import keys
from store.kernel.stream_tiles import applied_through
from store.kernel.tiles import TilePlan, WindowValue, counted_entries, window_values
from store.kernel.windows import WindowFeature
from store.online.commands import Command, RowReads
from store.online.conversations import Conversation, Knowledge, all_views, ask_generations, learn, row_fields
from store.online.plan import ViewRead
from store.online.stored_rows import NOT_FOUND, NULL_VALUE, PRESENT, EventTimes, ViewRows
from store.online.windows import WindowedView, WindowState, ask_windows, load_plan

_ATTEMPTS_MAX = 5
_TIMESTAMP = "UNIX_TIMESTAMP"
_SECOND_US = 1_000_000


class KeysWanted(NamedTuple):
    """Entity keys, the plain views to read for each of them, and the windowed ones."""

    entity_keys: Sequence[bytes]
    views: tuple[str, ...]
    windowed: tuple[WindowedView, ...] = ()


class KeyTiles(NamedTuple):
    """What is stored of one entity key for one windowed view: a materialization's text and the stream's entries."""

    batch: bytes | None
    stream: Sequence[bytes]


class ViewTiles(NamedTuple):
    """What is stored of a windowed view, one item per entity key, and which tiles these are.

    `plan` is that of the definition that the tiles follow, maybe an earlier one.
    """

    keys: Sequence[KeyTiles]
    state: WindowState
    plan: TilePlan

    @property
    def byte_count(self) -> int:
        """Returns how many bytes they are."""
        return sum(len(key.batch or b"") + sum(map(len, key.stream)) for key in self.keys)


class TileMark(NamedTuple):
    """What the stored tiles of a key hold of a windowed view: enough to know again which events they are made of.

    `applied_through` is the highest log id applied, 0 for none; where there was no materialization, that is None.

    Attributes:
        known_us: when the materialization began; `files` tells which files of the source it read.
        fingerprint: of the definition that the tiles follow.
    """

    generation: int
    applied_through: int
    batch_end_us: int | None
    line_id: int | None
    known_us: int | None
    files: str | None
    fingerprint: str


def marks_of(view: WindowedView, tiles: ViewTiles) -> list[TileMark]:
    """Returns the marks of the tiles of each entity key."""
    state = tiles.state
    materialized: tuple[int | None, int | None, int | None, str | None] = None, None, None, None
    if state.seam is not None:
        materialized = state.seam.batch_end_us, state.seam.line_id, state.known_us, state.files
    rest = *materialized, state.stream_fingerprint(view)
    return [TileMark(state.generation, applied_through(key.stream), *rest) for key in tiles.keys]


class Stored(NamedTuple):
    """What one group of entity keys has: a list of rows per key, and per windowed view its tiles."""

    rows: list[list[bytes | None]]
    tiles: list[ViewTiles]


def read_stored(knowledge: Knowledge, wanted: Sequence[KeysWanted]) -> Conversation[list[Stored]]:
    """Returns rows and tiles of some entity keys, in one round trip unless a generation was switched meanwhile.

    Shapes: one item per item of `wanted`.
    """
    views = all_views(tuple([group.views for group in wanted]))
    windowed = {view.name: view for group in wanted for view in group.windowed}
    names = tuple(windowed)
    questions = [ask_generations(knowledge.project, views)] if views else []
    questions.append(ask_windows(knowledge.project, names))
    for _ in range(_ATTEMPTS_MAX):
        assumed_rows = [knowledge.generations_of(view).active for view in views]
        assumed = {name: knowledge.windows.get(name, WindowState()) for name in names}
        reads = [(group.entity_keys, row_fields(knowledge, group.views)) for group in wanted if group.views]
        commands = [c for group in wanted for c in _tile_commands(group, assumed)]
        replies = list((yield RowReads(reads, questions[-1], [*commands, *questions[:-1]])))
        if not knowledge.is_ordered:
            # The nodes of a cluster do not wait for each other: what is in force is asked once the tiles are there.
            replies[-len(questions) :] = yield questions
        actual_rows = [each.active for each in learn(knowledge, views, replies[-2])] if views else []
        states = _states(names, replies[-1])
        knowledge.windows |= states
        # A seam that moves within a generation is none; the fingerprint goes with the generation.
        if actual_rows == assumed_rows and all(
            _are_same(states[v.name], assumed[v.name], v) for v in windowed.values()
        ):
            return (yield from _sorted_out(knowledge, wanted, replies, states))
    raise OnlineStoreError(
        f"the generations of {[*views, *names]!r} were switched {_ATTEMPTS_MAX} times within one request; try again"
    )


def _are_same(now: WindowState, then: WindowState, view: WindowedView) -> bool:
    is_same_stream = now.stream_fingerprint(view) == then.stream_fingerprint(view)
    return now.generation == then.generation and is_same_stream


def _states(names: Sequence[str], answer: Sequence[bytes | None]) -> dict[str, WindowState]:
    return {name: WindowState.parse(answer[2 * i : 2 * i + 2]) for i, name in enumerate(names)}


def _tile_commands(group: KeysWanted, states: dict[str, WindowState]) -> list[Command]:
    commands: list[Command] = []
    for view in group.windowed:
        state = states[view.name]
        fingerprint = state.stream_fingerprint(view)
        for key in group.entity_keys:
            commands += (
                ("GET", keys.batch_tiles_key(key, view.name, state.generation)),
                ("HVALS", keys.stream_tiles_key(key, view.name, fingerprint)),
            )
    return commands


def _sorted_out(
    knowledge: Knowledge,
    wanted: Sequence[KeysWanted],
    replies: Sequence[object],
    states: dict[str, WindowState],
) -> Conversation[list[Stored]]:
    """Returns the replies by group; loads what is not yet known of earlier definitions."""
    remaining = iter(replies)
    rows = [[next(remaining) for _ in group.entity_keys] if group.views else [] for group in wanted]
    stored = []
    for group, of_group in zip(wanted, rows, strict=True):
        tiles = []
        for view in group.windowed:
            of_keys = [KeyTiles(next(remaining), next(remaining)) for _ in group.entity_keys]  # type: ignore[arg-type]
            state, plan = states[view.name], view.plan
            if state.fingerprint not in ("", view.fingerprint):
                plan = yield from load_plan(knowledge, state.fingerprint)
            tiles.append(ViewTiles(of_keys, state, plan))
        stored.append(Stored(of_group, tiles))  # type: ignore[arg-type]
    return stored


def read_windowed(read: ViewRead, tiles: ViewTiles, now_us: int) -> tuple[ViewRows, int]:
    """Returns what the tiles of one windowed view say at request time, and how many sums were beyond int64.

    Raises:
        StoredRowError: tiles that this version cannot read.
    """
    kept = {feature.name: feature for feature in tiles.plan.features}
    features = [kept.get(column.name) for column in read.wanted]
    known = [
        feature
        for feature, column in zip(features, read.wanted, strict=True)
        if feature is not None and feature.type_name == column.type_name
    ]
    names = {feature.name for feature in known}
    found = [_values_of(read, tiles, key, known, now_us) for key in tiles.keys]
    by_name = {feature.name: [values[i] for values in found] for i, feature in enumerate(known)}
    overflows = sum(value.is_overflow for values in found for value in values)
    # Features of one window share their times, which are then written once.
    times_of = {}
    for feature in known:
        window = feature.window_us, feature.hop_us
        if window not in times_of:
            times_of[window] = EventTimes([value.event_us for value in by_name[feature.name]])
    window_of = {feature.name: (feature.window_us, feature.hop_us) for feature in known}
    columns, statuses, times = [], [], []
    nothing = [None] * len(found)
    for column in read.wanted:
        if column.name not in names:
            columns.append(nothing)
            statuses.append([NOT_FOUND] * len(found))
            times.append(EventTimes(nothing))
            continue
        plain = [value.value for value in by_name[column.name]]
        if column.type_name.startswith(_TIMESTAMP):
            plain = [_seconds(value) for value in plain]
        columns.append(plain)
        statuses.append([NULL_VALUE if value is None else PRESENT for value in plain])
        times.append(times_of[window_of[column.name]])
    newest = [max([v.event_us for v in values if v.event_us is not None], default=None) for values in found]
    return ViewRows(columns, statuses, EventTimes(newest), feature_times=times), overflows


def _values_of(
    read: ViewRead, tiles: ViewTiles, key: KeyTiles, known: Sequence[WindowFeature], now_us: int
) -> list[WindowValue]:
    try:
        counted, _ = counted_entries(key.batch, key.stream, tiles.state.seam, now_us)
        return window_values(tiles.plan, known, counted, now_us)
    except StoredRowError as error:
        raise StoredRowError(f"feature view {read.name!r}: {error}") from error


def _seconds(value: object) -> object:
    """Returns microseconds since the epoch as the whole seconds that Feast's timestamps are."""
    if isinstance(value, list):
        return [item // _SECOND_US for item in value]
    return None if value is None else value // _SECOND_US  # type: ignore[operator]
