"""The audit of plain views: rows that agree are told by whole columns, the others are judged one by one."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from store.audit.columns import Answer, Truths, equal_values, integers, plain_values, times_of, truths
from store.audit.log import ROW_FILE
from store.audit.recompute import AuditedView
from store.audit.report import WELL, Judged
from store.kernel.codec import RowTimes
from store.kernel.definitions import Column
from store.kernel.equality import are_equal
from store.kernel.judging import (
    ServedRow,
    SourceRow,
    Trained,
    ViewFacts,
    cause_of_skew,
    judge_reproduction,
)
from store.kernel.served_log import (
    REQUEST_TIME,
    STATUS_CODES,
    STATUS_NAMES,
    FileNote,
    LoggedFeature,
    LoggedState,
    RowColumns,
)
from store.offline.exact_rows import CAME_US, NUMBER, TIMES

_PRESENT, _NULL, _NOT_FOUND, _OUTSIDE = (
    STATUS_CODES[name] for name in ("PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")
)
Verdicts = dict[str, list[Judged]]
"""By the column of a feature what was found of each row."""


class PlainView:
    """The audit of one plain view in the files of one plan.

    Attributes:
        name: of the view, as the request calls it.
        prefix: of its features' names in what training sees.
        features: those that were logged, the ones that the view has no more included.
    """

    def __init__(
        self,
        view: AuditedView,
        features: list[LoggedFeature],
        notes: list[FileNote],
        state_now: Callable[[str], LoggedState],
        facts: Mapping[str, Any],
    ) -> None:
        """Takes what is known.

        Args:
            notes: of all files that were found, by their places.
            facts: `has_key_ttl` and `erased_us` of `ViewFacts`.
        """
        self.view = view
        self.name = view.logged.name
        self.prefix = view.prefix
        self.features = features
        self._notes = notes
        self._state_now = state_now
        self._columns = RowColumns.of(view.logged.name)
        self._facts = {
            "ttl_us": view.logged.ttl_us,
            "ttl_now_us": view.ttl_now_us,
            "is_redefined": view.is_redefined,
            "source_changed_us": None if view.exact is None else view.exact.changed_us,
            **facts,
        }
        declared = [feature.declared for feature in features]
        self._zones = {} if view.exact is None else view.exact.zones(declared)

    # --- by whole columns -----------------------------------------------------------------------

    def settled(self, answer: Answer) -> Truths:
        """Returns the rows of which all is well: served as the row that training sees has it."""
        is_settled = np.ones(len(answer), bool)
        for _, is_well in self._well(answer):
            is_settled &= is_well
        return is_settled

    def _well(self, answer: Answer) -> Iterator[tuple[LoggedFeature, Truths]]:
        """Yields for each feature the rows of which all is well with it."""
        at_us, event_us = integers(answer.logged(REQUEST_TIME)), integers(answer.logged(self._columns.event_us))
        has_row = truths(pc.is_valid(answer.logged(self._columns.event_us)))
        ttl_us = self.view.logged.ttl_us
        is_outside = has_row & (event_us < at_us - ttl_us) if ttl_us else np.zeros(len(answer), bool)
        is_known: Truths = ~has_row | is_outside | self._is_same_row(answer)
        for feature in self.features:
            logged = answer.logged(feature.column)
            status = integers(answer.logged(f"{feature.column}__status"))
            of_value = np.where(truths(pc.is_null(logged)), _NULL, _PRESENT)
            expected = np.where(has_row, np.where(is_outside, _OUTSIDE, of_value), _NOT_FOUND)
            are_equal_values = equal_values(feature.declared, logged, self._trained(answer, feature))
            yield feature, is_known & (status == expected) & are_equal_values

    def _is_same_row(self, answer: Answer) -> Truths:
        columns = self._trained_times(answer)
        if columns is None:
            return np.zeros(len(answer), bool)
        found, is_same = times_of(columns)
        served = [answer.logged(name) for name in self._columns[: len(found)]]
        for left, right in zip(served, found, strict=True):
            is_same &= (integers(left) == integers(right)) & (truths(pc.is_null(left)) == truths(pc.is_null(right)))
        return is_same

    def _trained_times(self, answer: Answer) -> list[pa.ChunkedArray] | None:
        columns = [answer.trained(f"{self.view.prefix}{name}") for name in self.view.time_columns]
        return [column for column in columns if column is not None] or None

    def _trained(self, answer: Answer, feature: LoggedFeature) -> pa.ChunkedArray | None:
        column = answer.trained(f"{self.view.prefix}{feature.name}")
        if feature.name not in self.view.names or column is None:
            return None
        return self._zoned(feature.name, column)

    def _zoned(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        zone = self._zones.get(name)
        return column if zone is None else column.cast(pa.timestamp(column.type.unit, zone))

    # --- one by one -----------------------------------------------------------------------------

    def judged(self, answer: Answer) -> Verdicts:
        """Returns what is found of each feature of some rows."""
        trained = self._times_today(answer)
        served = self._served_rows(answer, trained)
        rows = self._source_rows(answer, served, trained)
        states = self._states(answer)
        verdicts: Verdicts = {}
        for feature, is_well in self._well(answer):
            verdicts[feature.column] = of_feature = [WELL] * len(answer)
            if is_well.all():
                continue
            values = answer.logged(feature.column).to_pylist()
            seen = plain_values(feature.declared, self._trained(answer, feature), len(answer))
            codes = answer.logged(f"{feature.column}__status").to_pylist()
            for n in np.flatnonzero(~is_well).tolist():
                value = values[n], STATUS_NAMES.get(codes[n], "INVALID"), seen[n]
                of_feature[n] = self._verdict(feature.name, served[n], value, trained[n], rows, n, states[n])
        return verdicts

    def _verdict(
        self,
        feature: str,
        row: ServedRow,
        value: tuple[Any, str, Any],
        times: RowTimes | None,
        rows: Mapping[int, list[SourceRow]],
        number: int,
        state: LoggedState,
    ) -> Judged:
        served, status, today = value
        facts = ViewFacts(state=state, **self._facts)
        own, other = rows.get(2 * number, []), rows.get(2 * number + 1, [])
        reproduction = judge_reproduction(row, feature, served, status, own, facts)
        if are_equal(served, today):
            return Judged(reproduction, False, None)
        cause = cause_of_skew(row, status, reproduction, own, Trained(times, other), facts)
        return Judged(reproduction, True, cause)

    def _states(self, answer: Answer) -> list[LoggedState]:
        """Returns for each row what Redis held of the view, by the generation that was read."""
        generations = answer.logged(self._columns.generation).to_pylist()
        known: dict[tuple[int, int], LoggedState] = {}
        states = []
        for place, generation in zip(answer.logged(ROW_FILE).to_pylist(), generations, strict=True):
            if (place, generation) not in known:
                known[place, generation] = self._state(self._notes[place], generation)
            states.append(known[place, generation])
        return states

    def _state(self, note: FileNote, generation: int) -> LoggedState:
        name = self.view.logged.stored_name
        for states in (note.states_before, note.states_after):
            state = states.get(name)
            if state is not None and state.generation == generation:
                return state
        return note.states_before.get(name) or self._state_now(name)

    def _served_rows(self, answer: Answer, trained: list[RowTimes | None]) -> list[ServedRow]:
        columns = [answer.logged(name).to_pylist() for name in self._columns]
        at_us = integers(answer.logged(REQUEST_TIME)).tolist()
        has_created = len(self.view.time_columns) > 1 or self.view.exact is None
        fingerprints = [state.fingerprint for state in self._states(answer)]
        rows = []
        for at, event_us, event_ns, created_us, created_ns, is_pushed, _, fingerprint, today in zip(
            at_us, *columns, fingerprints, trained, strict=True
        ):
            # A source without created times has none to compare with those that came by push.
            known = (created_us, created_ns or 0) if has_created else (None, 0)
            times = None if event_us is None else RowTimes(event_us, event_ns or 0, *known)
            is_older = fingerprint not in ("", self.view.logged.fingerprint)
            rows.append(ServedRow(at, times, bool(is_pushed), is_older, today is not None))
        return rows

    def _times_today(self, answer: Answer) -> list[RowTimes | None]:
        columns = self._trained_times(answer)
        if columns is None:
            return [None] * len(answer)
        found, _ = times_of(columns)
        numbers = [column.to_pylist() for column in found]
        if len(numbers) == 2:
            numbers += [[None] * len(answer), [0] * len(answer)]
        return [
            None if event_us is None else RowTimes(event_us, event_ns or 0, created_us, created_ns or 0)
            for event_us, event_ns, created_us, created_ns in zip(*numbers, strict=True)
        ]

    def _source_rows(
        self, answer: Answer, served: list[ServedRow], trained: list[RowTimes | None]
    ) -> dict[int, list[SourceRow]]:
        """Returns the source's rows with the times of those that were served (2n) and that training sees (2n + 1)."""
        if self.view.exact is None:
            return {}
        wanted: list[tuple[int, RowTimes]] = []
        for number, (row, times) in enumerate(zip(served, trained, strict=True)):
            wanted += [(2 * number, row.times)] if row.times is not None else []
            wanted += [(2 * number + 1, times)] if times is not None else []
        if not wanted:
            return {}
        features = [feature.declared for feature in self.features if feature.name in self.view.names]
        found: dict[int, list[SourceRow]] = {}
        names = [name for name, _ in self.view.logged.join_keys]
        for table in self.view.exact.rows(names, [column.name for column in features], self._asked(answer, wanted)):
            values = [self._plain(column, table.column(column.name)) for column in features]
            numbers, came = table.column(NUMBER).to_pylist(), table.column(CAME_US).to_pylist()
            for place, (number, came_us) in enumerate(zip(numbers, came, strict=True)):
                of_row = {column.name: each[place] for column, each in zip(features, values, strict=True)}
                found.setdefault(number, []).append(SourceRow(of_row, came_us))
        return found

    def _plain(self, column: Column, found: pa.ChunkedArray) -> list[Any]:
        return plain_values(column, self._zoned(column.name, found), len(found))

    def _asked(self, answer: Answer, wanted: list[tuple[int, RowTimes]]) -> pa.Table:
        places: npt.NDArray[np.int64] = np.array([number // 2 for number, _ in wanted])
        columns = {
            name: answer.table.column(given).take(pa.array(places))
            for (name, _), given in zip(self.view.logged.join_keys, self.view.logged.key_columns, strict=True)
        }
        times = dict(zip(TIMES, zip(*[times for _, times in wanted], strict=True), strict=True))
        stamps = {name: pa.array(times[name], pa.int64()) for name in TIMES}
        return pa.table({**columns, **stamps, NUMBER: pa.array([number for number, _ in wanted], pa.int64())})
