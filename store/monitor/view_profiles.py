"""Profiles of feature views: of a plain one the rows of its source, of a windowed one its features at its events."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from feast import FeatureStore
from feast.on_demand_feature_view import OnDemandFeatureView

from store.clock import Clock
from store.definitions_from_feast import batch_source_of, join_key_columns, refuse_unsupported
from store.errors import DefinitionError
from store.kernel.profiles import Profile
from store.limits import PROFILE_SAMPLE_ROWS
from store.monitor.feature_types import Declared, summed_column
from store.monitor.source_profiles import Profiled, SourceRows
from store.monitor.subjects import Span
from store.offline import DuckDBOfflineStore
from store.offline.column_sums import TableSum
from store.offline.event_sample import SampledEvents, sampled_events
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
        return [self._profile(span, notes) for span in spans]

    def _profile(self, span: Span, notes: Sequence[str]) -> Profile:
        sample = self._events(span)
        told = list(notes)
        if sample.total > sample.events.num_rows:
            told.append(
                f"its windows were looked at as of {sample.events.num_rows} of its {sample.total} events with a key, "
                "chosen by a hash of key and time"
            )
        references = [f"{self.view.name}:{each.name}" for each in self.declared]
        answer = DuckDBOfflineStore.get_historical_features(
            self.store.config,
            [self.view],
            references,
            sample.events,
            self.store.registry,
            self.store.project,
            full_feature_names=True,
        ).to_arrow()
        columns = [answer.column(f"{self.view.name}__{each.name}") for each in self.declared]
        summed, misfits = zip(
            *(summed_column(each, column.type) for each, column in zip(self.declared, columns, strict=True)),
            strict=True,
        )
        table = TableSum(summed)
        for batch in pa.table(columns, [each.name for each in self.declared]).to_batches():
            table.add(batch.columns, batch.num_rows)
        return replace(table.profile(), notes=(*told, *(note for note in misfits if note)))

    def _events(self, span: Span) -> SampledEvents:
        keys = [key.name for key in join_key_columns(self.view)]
        needed = needed_columns(self.rows.owner, self.rows.file, self.rows.found, keys, [])
        return sampled_events(
            self.rows.found,
            scan_of(self.rows.found, needed),
            settings_of(self.store.config),
            (*keys, _AT),
            (span.start_us, span.end_us),
            PROFILE_SAMPLE_ROWS,
        )
