"""Profiles of feature views: of a plain one the rows of its source, of a windowed one its features at its events."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FeatureStore
from feast.on_demand_feature_view import OnDemandFeatureView

from store.clock import Clock
from store.definitions_from_feast import batch_source_of, join_key_columns, refuse_unsupported
from store.errors import DefinitionError
from store.kernel.profiles import Profile
from store.limits import PROFILE_SAMPLE_ROWS, PROFILE_SAMPLES_AT_ONCE
from store.monitor.feature_types import Declared, summed_column
from store.monitor.source_profiles import Profiled, SourceRows
from store.monitor.subjects import Span
from store.offline import DuckDBOfflineStore
from store.offline.event_sample import EventSamples
from store.offline.profiling import StretchSums
from store.offline.row_transformations import transformation_of
from store.offline.settings import settings_of
from store.offline.source_columns import needed_columns, scan_of
from store.offline.sources import file_source
from store.offline.transformed_files import open_rows
from store.windows_from_feast import is_windowed

_AT = "event_timestamp"


def view_rows(store: FeatureStore, clock: Clock, view: Any) -> Profiled:
    """Returns what is profiled of a feature view.

    Raises:
        DefinitionError: an on-demand view, which has no rows of its own, or a view that cannot be served as declared.
        SourceError: its source cannot be read.
    """
    if isinstance(view, OnDemandFeatureView):
        raise DefinitionError(
            f"on-demand feature view {view.name!r} has no rows of its own; it is profiled through a feature service "
            "that is logged ('larder monitor profile --service NAME') or a saved training set (--training-set NAME)"
        )
    refuse_unsupported(view)
    owner = f"feature view {view.name!r}"
    declared = [Declared.of(field) for field in _features(view)]
    file = file_source(batch_source_of(view), owner)
    found = open_rows(store.config, file, transformation_of(view))
    rows = SourceRows(store.config, clock, owner, file, found, () if is_windowed(view) else declared)
    return WindowedRows(store, view, rows, declared) if is_windowed(view) else rows


def _features(view: Any) -> list[Any]:
    keys = {key.name for key in join_key_columns(view)} | set(getattr(view, "join_keys", ()))
    return [field for field in view.features if field.name not in keys]


@dataclass(frozen=True)
class WindowedRows:
    """The features of a windowed view as of each of its events, which are the `rows` of its source."""

    store: FeatureStore
    view: Any
    rows: SourceRows
    declared: Sequence[Declared]

    def extent(self) -> Span | None:
        """Returns the time that its events lie in, None if it has none."""
        return self.rows.extent()

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns those of some spans that have events in a younger file; windows that reach back are not looked at."""
        return self.rows.changed(known)

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns a profile for each of some spans.

        Raises:
            LarderError: as the retrieval raises it.
        """
        notes = [note for profile in self.rows.profiles(spans[:1]) for note in profile.notes]
        samples = self._samples()
        counts = samples.counts([(span.start_us, span.end_us) for span in spans])
        found: list[Profile] = []
        for begin, end in _together([min(count, PROFILE_SAMPLE_ROWS) for count in counts]):
            found += self._profiles(samples, spans[begin:end], counts[begin:end], notes)
        return found

    def _profiles(
        self, samples: EventSamples, spans: Sequence[Span], counts: Sequence[int], notes: Sequence[str]
    ) -> list[Profile]:
        stretches = [(span.start_us, span.end_us) for span in spans]
        answer = self._as_of(samples.events(stretches))
        columns = {each.name: answer.column(f"{self.view.name}__{each.name}") for each in self.declared}
        summed, misfits = zip(
            *(summed_column(each, columns[each.name].type) for each in self.declared),
            strict=True,
        )
        # At a time that was rounded up an event may have happened just before the end.
        last_us = [
            (start, end + 1 if number == len(spans) - 1 else end) for number, (start, end) in enumerate(stretches)
        ]
        sums = StretchSums(summed, last_us)
        for batch in pa.table({_AT: answer.column(_AT), **columns}).to_batches():
            times, *values = batch.columns
            sums.add(times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False), values)
        told = [*notes, *(note for note in misfits if note)]
        return [table.profile([*told, *_told_sample(count)]) for table, count in zip(sums.tables, counts, strict=True)]

    def _as_of(self, events: pa.Table) -> pa.Table:
        """Returns the features of the view as of events."""
        return DuckDBOfflineStore.get_historical_features(
            self.store.config,
            [self.view],
            [f"{self.view.name}:{each.name}" for each in self.declared],
            events,
            self.store.registry,
            self.store.project,
            full_feature_names=True,
        ).to_arrow()

    def _samples(self) -> EventSamples:
        keys = [key.name for key in join_key_columns(self.view)]
        needed = needed_columns(self.rows.owner, self.rows.file, self.rows.found, keys, [])
        scan = scan_of(self.rows.found, needed)
        settings = settings_of(self.store.config)
        return EventSamples(self.rows.found, scan, settings, (*keys, _AT), PROFILE_SAMPLE_ROWS)


def _together(counts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields from where to where stretches are looked at together, so that they have not too many events."""
    begin = total = 0
    for place, count in enumerate(counts):
        if place > begin and total + count > PROFILE_SAMPLES_AT_ONCE:
            yield begin, place
            begin, total = place, 0
        total += count
    yield begin, len(counts)


def _told_sample(count: int) -> list[str]:
    if count <= PROFILE_SAMPLE_ROWS:
        return []
    chosen = f"windows were looked at as of {PROFILE_SAMPLE_ROWS} of {count} events that have a key"
    return [f"{chosen}, which a hash of key and time chose"]
