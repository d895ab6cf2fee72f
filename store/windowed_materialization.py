"""The materialization of a windowed view: a new generation of tiles from its batch source, which then takes over."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource
from feast.repo_config import RepoConfig

from store.kernel.coverage import Interval, ViewState
from store.kernel.definitions import ViewDefinition
from store.kernel.keys import batch_tiles_key, row_field, stream_member
from store.kernel.tiles import Seam, TilePlan, encode_batch
from store.kernel.windows import floor_to
from store.limits import WINDOW_KEYS_AT_ONCE
from store.offline.row_transformations import RowTransformation
from store.offline.seen_files import SeenFiles
from store.offline.window_events import EVENT_US, WindowEvents, window_events
from store.online.client import RedisSession
from store.online.commands import Command
from store.online.conversations import KnownState, next_generation, read_state, replace_state
from store.online.newest import forget_newest, raise_newest
from store.online.views import drop_tiles, say
from store.online.windows import expiry_ms, keep_definition, tile_plan
from store.tile_batches import KeyEntries, TileBuilder


@dataclass(frozen=True, slots=True)
class WindowedRun:
    """What a materialization of a windowed view does.

    Every run makes all tiles that the windows reach, so that late and corrected rows come with any of them, and running
    one again changes nothing. An END before that of an earlier run does not take the batch end back.

    Attributes:
        source: the batch source.
        known: what Redis holds of the view.
        batch_end_us: events before it are taken in.
        now_us: the clock's instant at which the run began.
        is_streamed: whether events also come by the event log.
        transformation: what the source's rows go through first.
    """

    config: RepoConfig
    definition: ViewDefinition
    source: DataSource
    known: KnownState
    batch_end_us: int
    now_us: int
    is_streamed: bool
    transformation: RowTransformation | None = None

    @classmethod
    def planned(
        cls,
        config: RepoConfig,
        definition: ViewDefinition,
        source: DataSource,
        session: RedisSession,
        *,
        end_us: int,
        now_us: int,
        is_streamed: bool,
    ) -> "WindowedRun":
        """Returns the run up to an end, which is no later than the clock's instant `now_us`."""
        known = session.hold(read_state(definition.project, definition.name))
        plan = tile_plan(definition)
        ends_us = [plan.batch_end_us(end_us)]
        if known.state.seam is not None:
            ends_us.append(floor_to(known.state.seam.batch_end_us, plan.hops[-1]))
        return cls(config, definition, source, known, max(ends_us), now_us, is_streamed)

    @property
    def plan(self) -> TilePlan:
        """Returns how the view's tiles are laid out."""
        return tile_plan(self.definition)

    @property
    def interval(self) -> Interval:
        """Returns the event times that are taken in."""
        return Interval(self.plan.limits(self.now_us).oldest_us[-1], self.batch_end_us)

    @property
    def is_rebuild(self) -> bool:
        """Whether the definition has changed since the last run."""
        return self.known.state.fingerprint not in ("", self.definition.fingerprint)

    @property
    def has_line(self) -> bool:
        """Whether a line through the event log says what is taken in, and not the time of events alone."""
        return self.is_streamed and not self.definition.is_external

    def events(self, line_id: int | None) -> WindowEvents:
        """Returns the events that are taken in.

        Args:
            line_id: events of the stream that land and arrived at or before it are in the source, and are taken in;
                None where no line was drawn.

        Raises:
            SourceError: the source is not there, or lacks a column.
            WrongType: a join key that cannot be compared with its declared type.
        """
        return window_events(self.config, self.definition, self.source, self.interval, line_id, self.transformation)

    def run(
        self,
        session: RedisSession,
        key_ttl_seconds: int | None,
        advance: Callable[[int], object],
        *,
        line_id: int | None,
    ) -> None:
        """Fills a new generation and has it take over, then drops the old ones.

        Args:
            advance: is told how many events were taken in.
            line_id: as for `events`.

        Raises:
            MaterializationBusy: another run was faster.
            SourceError, WrongType, DefinitionError, OnlineStoreError: as their names say.
        """
        project, view = self.definition.project, self.definition.name
        generation = session.hold(next_generation(project, view))
        session.hold(say([keep_definition(self.definition)]))
        builder = TileBuilder(self.definition, self.plan, self.now_us)
        expires_ms = expiry_ms(self.plan, key_ttl_seconds)
        events = self.events(line_id)
        newest_us: list[int] = []
        batches = _counted(events.batches(), advance, newest_us)
        for commands in _batched(builder.entries(batches), view, generation, expires_ms):
            session.hold(say(commands))
        if newest_us:
            session.hold(say([raise_newest(project, [row_field(view, generation)], max(newest_us))]))
        before = self.known.state
        state = ViewState(
            generation,
            self.definition.fingerprint,
            (self.interval,) if self.interval.start_us < self.interval.end_us else (),
            cleaned_below=before.cleaned_below,
            known_us=self.now_us,
            seam=Seam(self.batch_end_us, line_id or 0, self.definition.is_external),
            files=SeenFiles.of(events.source).text,
        )
        known = session.hold(replace_state(project, view, self.known, state))
        drop_tiles(session, project, view, range(before.cleaned_below, generation))
        if self.is_rebuild:
            session.hold(say([forget_newest(project, [stream_member(view, before.fingerprint)])]))
        session.hold(replace_state(project, view, known, replace(state, cleaned_below=generation)))


def _counted(
    batches: Iterable[pa.RecordBatch], advance: Callable[[int], object], newest_us: list[int]
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if batch.num_rows:
            newest_us.append(pc.max(batch.column(EVENT_US)).as_py())
        yield batch
        advance(batch.num_rows)


def _batched(entries: Iterable[KeyEntries], view: str, generation: int, expires_ms: int) -> Iterator[list[Command]]:
    remaining = iter(entries)
    while batch := list(islice(remaining, WINDOW_KEYS_AT_ONCE)):
        stored = ((batch_tiles_key(key, view, generation), encode_batch(tiles)) for key, tiles in batch)
        yield [("SET", key, text, "PX", expires_ms) for key, text in stored]
