"""Profiles of feature services: the vectors that were served and logged, with the status of each value."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore
from feast.value_type import ValueType

from store.audit.destinations import log_folder
from store.audit.forms import stored_type
from store.audit.log import Sample, ServedFiles, served_files
from store.audit.log import Span as LogSpan
from store.clock import Clock
from store.errors import InputError
from store.kernel.profiles import Profile
from store.kernel.served_log import REQUEST_TIME, STATUS_CODES, STATUS_NAMES, LoggedFeature, LoggedPlan
from store.kernel.values import is_opaque
from store.monitor.feature_types import type_name_of
from store.monitor.subjects import Span
from store.offline.column_sums import SummedColumn, kind_of
from store.offline.profiling import StretchSums

_SECONDS: Final = pa.timestamp("s", "UTC")
_PRESENT: Final = STATUS_CODES["PRESENT"]


def service_rows(store: FeatureStore, clock: Clock, service: Any) -> "ServedRows":
    """Returns what is profiled of a feature service.

    Raises:
        InputError: it is not logged.
        DefinitionError: its log is in no folder that can be used.
        SourceUnreadable: a file of the log cannot be read.
    """
    if service.logging_config is None:
        raise InputError(
            f"feature service {service.name!r} is not logged, so nothing is known of what it served; declare it with "
            f"logging_config=LoggingConfig(destination=FileLoggingDestination(path='data/served/{service.name}'), "
            "sample_rate=1.0) and run 'feast apply'"
        )
    views = store.list_all_feature_views(allow_cache=True)
    folder = log_folder(store.config, service.name, service.logging_config.destination, views)
    return ServedRows(clock, served_files(folder, store.project, service.name, LogSpan()))


@dataclass(frozen=True)
class ServedRows:
    """The logged vectors of a service."""

    clock: Clock
    found: ServedFiles

    def extent(self) -> Span | None:
        """Returns the time that its requests lie in, None if there was none."""
        files = [file.note for file in self.found.files if file.row_count]
        if not files:
            return None
        return Span(min(note.first_us for note in files), max(note.last_us for note in files) + 1)

    def changed(self, known: Mapping[Span, int]) -> list[Span]:
        """Returns those of some spans of which vectors were written after the instant that goes with it."""
        written = [
            (self.clock.of_system_us(Path(file.path).stat().st_mtime_ns // 1_000), _span_of(file.note))
            for file in self.found.files
        ]
        return [
            span
            for span, since_us in sorted(known.items())
            if any(at_us > since_us and held.meets(span) for at_us, held in written)
        ]

    def profiles(self, spans: Sequence[Span]) -> list[Profile]:
        """Returns a profile for each of some spans, which are in order of time and do not overlap.

        Raises:
            SourceUnreadable: a file of the log cannot be read.
        """
        hull = LogSpan(spans[0].start_us, spans[-1].end_us)
        within = replace(self.found, span=hull)
        by_plan = [self._of_plan(within, plan, places, spans) for plan, places in within.by_plan().items()]
        found = []
        for number, span in enumerate(spans):
            parts = [part for of_plan in by_plan if (part := of_plan[number]).rows]
            # The plan that was logged last is said last, so that its order of features stands where they differ.
            merged = reduce(Profile.merge, parts) if parts else Profile(0, {})
            found.append(replace(merged, notes=(*merged.notes, *self._coverage(span))))
        return found

    def _of_plan(
        self, found: ServedFiles, plan: LoggedPlan, places: Sequence[int], spans: Sequence[Span]
    ) -> list[Profile]:
        features = [each for each in plan.features if each.is_output]
        sums = _PlanSums(features, spans)
        names = [REQUEST_TIME]
        for each in features:
            names += [each.column, f"{each.column}__status"]
        rows = sum(found.files[place].row_count for place in places)
        for table in found.rows(places, names, Sample(None, rows)):
            sums.add(table)
        return sums.profiles()

    def _coverage(self, span: Span) -> Iterator[str]:
        files = tuple(file for file in self.found.files if _span_of(file.note).meets(span))
        counts = ServedFiles(files, LogSpan(span.start_us, span.end_us), self.found.later_workers).coverage
        if counts.sampled_out:
            yield (
                f"of {counts.served} vectors served {counts.sampled_out} were left out of the log by its sample rate; "
                "shares hold for all of them, counts for those that are logged"
            )
        if counts.dropped:
            yield f"{counts.dropped} of {counts.served} vectors served were dropped from the log, which was full"
        if counts.missing_files:
            yield f"{counts.missing_files} files of the log are not there any more"


def _span_of(note: Any) -> Span:
    return Span(note.first_us, note.last_us + 1)


@dataclass(slots=True)
class _PlanSums:
    """Vectors of one plan in the making: values that were PRESENT, others as nulls, and how many had each status."""

    features: Sequence[LoggedFeature]
    spans: Sequence[Span]
    _sums: StretchSums = field(init=False)
    _counts: list[list[Counter[str]]] = field(init=False)

    def __post_init__(self) -> None:
        stretches = [(span.start_us, span.end_us) for span in self.spans]
        self._sums = StretchSums([_summed(each) for each in self.features], stretches)
        self._counts = [[Counter() for _ in self.features] for _ in self.spans]

    def add(self, table: pa.Table) -> None:
        """Adds rows of the log, in whatever order."""
        for batch in table.to_batches():
            columns = {name: batch.column(name) for name in batch.schema.names}
            times = columns[REQUEST_TIME].cast(pa.int64()).to_numpy(zero_copy_only=False)
            values = [_present(each, columns) for each in self.features]
            self._sums.add(times, values)
            for number, span in enumerate(self.spans):
                inside = (times >= span.start_us) & (times < span.end_us)
                if inside.any():
                    self._count(number, columns, inside)

    def _count(self, number: int, columns: Mapping[str, pa.Array], inside: "np.ndarray[Any, Any]") -> None:
        for place, each in enumerate(self.features):
            codes = columns[f"{each.column}__status"].fill_null(0).to_numpy(zero_copy_only=False)[inside]
            kinds, counts = np.unique(codes, return_counts=True)
            for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True):
                self._counts[number][place][STATUS_NAMES.get(kind, "UNKNOWN")] += count

    def profiles(self) -> list[Profile]:
        """Returns what was added, for each span."""
        for table, counters in zip(self._sums.tables, self._counts, strict=True):
            for column, counter in zip(table.columns, counters, strict=True):
                column.statuses = dict(counter)
        return [table.profile() for table in self._sums.tables]


def _summed(feature: LoggedFeature) -> SummedColumn:
    name, type_name = f"{feature.view}:{feature.name}", type_name_of(ValueType[feature.type_name])
    return SummedColumn(name, type_name, kind_of(_value_type(feature)))


def _value_type(feature: LoggedFeature) -> pa.DataType:
    if feature.type_name == "UNIX_TIMESTAMP":
        return _SECONDS
    # What is stored as the bytes of a message is a map or a struct, not a value of its own.
    return pa.null() if is_opaque(feature.type_name) else stored_type(feature.type_name)


def _present(feature: LoggedFeature, columns: Mapping[str, pa.Array]) -> pa.Array:
    """Returns the values of a feature that were served, null where its status says that there was none."""
    values, codes = columns[feature.column], columns[f"{feature.column}__status"]
    served = pc.if_else(pc.fill_null(pc.equal(codes, _PRESENT), False), values, pa.scalar(None, values.type))
    return served.cast(_SECONDS) if feature.type_name == "UNIX_TIMESTAMP" else served
