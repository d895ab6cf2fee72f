"""How a materialization fills one generation of a plain view in Redis, batch by batch."""

from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from store.arrow_rows import EVENT_US
from store.kernel.codec import RowLayout
from store.kernel.coverage import Run, ViewState
from store.kernel.definitions import ViewDefinition
from store.kernel.keys import row_field
from store.online import RedisOnlineStore
from store.online.bulk import BulkWriter
from store.online.client import RedisSession
from store.online.conversations import KnownState, Writing, next_generation, register_layout, replace_state
from store.online.newest import raise_newest
from store.online.views import carry_pushed, drop_generations, say
from store.packed_columns import packed_rows


@dataclass(slots=True)
class Filling:
    """Fills one generation of one view in Redis: the one that is read, or for a rebuild a new one beside it."""

    session: RedisSession
    definition: ViewDefinition
    online: RedisOnlineStore
    key_ttl_seconds: int | None
    known: KnownState
    generation: int = 0
    _newest_us: list[int] = field(default_factory=list)

    def begin(self, run: Run) -> None:
        """Finishes what a killed run left, and marks a rebuild, so that pushes go into both generations."""
        state = self.known.state
        self._clean(state.generation)
        self.generation = state.generation
        building = 0
        if run.is_rebuild:
            self.generation = building = self.session.hold(next_generation(self._project, self._view))
        if building != state.building:
            # A killed rebuild's generation is no longer written to; its number never comes again, and the next
            # switch drops its rows.
            self._replace(replace(state, building=building))

    def writer(self) -> BulkWriter:
        """Returns what writes into the generation that is filled; for all batches of a run."""
        layout = RowLayout.of(self.definition.features)
        tag = self.session.hold(register_layout(self.online.knowledge(self._project), layout))
        writing = Writing(tag, layout, self.key_ttl_seconds, self.session.slot_of())
        return BulkWriter(self.session, self._project, row_field(self._view, self.generation), writing)

    def write(self, writer: BulkWriter, batch: pa.RecordBatch) -> int:
        """Writes one batch of newest rows, and returns how many rows it has; several may be written at a time."""
        packed = packed_rows(self.definition, writer.writing.layout, writer.writing.schema_tag, batch)
        writer.write(packed.keys, packed.rows)
        if len(packed.keys):
            self._newest_us.append(pc.max(batch.column(EVENT_US)).as_py())
        return int(batch.num_rows)

    def end(self, run: Run, known_us: int) -> None:
        """Records what is covered now; a rebuilt generation takes over in the same step, then the old ones go.

        Args:
            known_us: when the run began: what was created later it may not have seen.
        """
        before = self.known.state
        if self._newest_us:
            member = row_field(self._view, self.generation)
            self.session.hold(say([raise_newest(self._project, [member], max(self._newest_us))]))
        if run.is_rebuild:
            carry_pushed(self.session, self._project, self._view, active=before.generation, building=self.generation)
        covered = ViewState(
            self.generation,
            self.definition.fingerprint,
            run.coverage_after,
            cleaned_below=before.cleaned_below,
            known_us=known_us if run.reaches_end else before.known_us,
        )
        self._replace(covered)
        self._clean(self.generation)

    def _clean(self, generation: int) -> None:
        """Drops the rows of earlier generations, unless that is done."""
        if self.known.state.cleaned_below < generation:
            drop_generations(self.session, self._project, self._view, range(self.known.state.cleaned_below, generation))
            self._replace(replace(self.known.state, cleaned_below=generation))

    def _replace(self, state: ViewState) -> None:
        self.known = self.session.hold(replace_state(self._project, self._view, self.known, state))

    @property
    def _project(self) -> str:
        return self.definition.project

    @property
    def _view(self) -> str:
        return self.definition.name
