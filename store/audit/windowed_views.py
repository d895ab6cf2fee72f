"""The audit of windowed views: each value is recomputed from the events that were known when it was served."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureStore

from store.audit.columns import Answer, Truths, equal_values, integers
from store.audit.forms import stored_type
from store.audit.plain_views import Verdicts
from store.audit.recompute import AuditedView
from store.audit.report import Judged
from store.audit.window_block import EventBlock, EventBlocks
from store.clock import Clock
from store.definitions_from_feast import batch_source_of
from store.kernel.definitions import ViewDefinition
from store.kernel.equality import are_equal
from store.kernel.judging import DIFFERENT, SAME, Cause, Reproduction
from store.kernel.keys import entity_key_encoder
from store.kernel.known_events import Known
from store.kernel.log_entries import partition_of
from store.kernel.served_log import REQUEST_TIME, STATUS_CODES, STATUS_NAMES, LoggedFeature, TileColumns
from store.kernel.window_judging import WindowFacts, why_lost
from store.kernel.windows import WindowFeature
from store.limits import AUDIT_WINDOW_KEYS
from store.offline.accepted_events import begun_ids, definition_folder, open_accepted
from store.offline.event_search import EventSearch
from store.offline.row_transformations import transformation_of

_OLDER = Reproduction(False, Cause.OLDER_DEFINITION)
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Vectors:
    """What a block of logged rows says of one windowed view.

    Attributes:
        keys: the entity key of each row, None where a part of it is null; `known` likewise.
    """

    keys: Sequence[Key | None]
    known: Sequence[Known | None]

    def by_keys(self) -> Iterator[tuple[list[Key], list[int]]]:
        """Yields a bounded number of keys, and the places of the rows that have them."""
        places: dict[Key, list[int]] = {}
        for place, (key, known) in enumerate(zip(self.keys, self.known, strict=True)):
            if key is not None and known is not None:
                places.setdefault(key, []).append(place)
        keys = list(places)
        for start in range(0, len(keys), AUDIT_WINDOW_KEYS):
            chunk = keys[start : start + AUDIT_WINDOW_KEYS]
            yield chunk, [place for key in chunk for place in places[key]]


class WindowedView:
    """The audit of one windowed view in the files of one plan.

    Attributes:
        name: as the request calls it.
        prefix: of its features' names in what training sees.
        features: those that were logged, the ones that the view has no more included.
    """

    def __init__(
        self,
        store: FeatureStore,
        clock: Clock,
        view: AuditedView,
        features: list[LoggedFeature],
        facts: Mapping[str, Any],
    ) -> None:
        """Takes what is known.

        Args:
            facts: `has_key_ttl` and `erased_us` of `WindowFacts`.
        """
        self.view = view
        self.name = view.logged.name
        self.prefix = view.prefix
        self.features = features
        self._config = store.config
        self._repo = Path(store.config.repo_path or ".")
        self._clock = clock
        self._facts = facts
        self._columns = TileColumns.of(view.logged.name)
        declared = {feature.name: feature for feature in view.definition.windows} if view.definition else {}
        self._windows: dict[str, WindowFeature] = {
            feature.name: declared[feature.name]
            for feature in features
            if feature.name in declared and declared[feature.name].type_name == feature.type_name
        }

    # --- all rows -------------------------------------------------------------------------------

    def settled(self, answer: Answer) -> Truths:
        """Returns the rows of which all is well: served as what was known then gives it, and as training sees it."""
        vectors = self._vectors(answer)
        expected: dict[str, list[Any]] = {name: [None] * len(answer) for name in self._windows}
        for block, places in self._blocks(vectors):
            asked = [block.asked(self._key(vectors, place), self._known(vectors, place)) for place in places]
            for name, values in block.values(asked).items():
                for place, value in zip(places, values, strict=True):
                    expected[name][place] = value
        has_key = np.array([known is not None for known in vectors.known], dtype=bool)
        is_settled: Truths = np.ones(len(answer), dtype=bool)
        for feature in self.features:
            if feature.name not in self._windows:
                return np.zeros(len(answer), dtype=bool)
            again = _as_logged(feature, expected[feature.name])
            logged = answer.logged(feature.column).to_pylist()
            is_same = [are_equal(served, value) for served, value in zip(logged, again, strict=True)]
            of_value = [STATUS_CODES["NULL_VALUE" if value is None else "PRESENT"] for value in again]
            status = np.where(has_key, of_value, STATUS_CODES["NOT_FOUND"])
            is_settled &= np.array(is_same, dtype=bool) & (
                status == integers(answer.logged(f"{feature.column}__status"))
            )
            is_settled &= self._agreeing(answer, feature)
        return is_settled

    def _agreeing(self, answer: Answer, feature: LoggedFeature) -> Truths:
        trained = answer.trained(f"{self.prefix}{feature.name}") if feature.name in self.view.names else None
        return equal_values(feature.declared, answer.logged(feature.column), trained)

    def _vectors(self, answer: Answer) -> Vectors:
        columns = [answer.table.column(name).to_pylist() for name in self.view.logged.key_columns]
        keys = [None if None in key else key for key in zip(*columns, strict=True)] if columns else [()] * len(answer)
        at_us = integers(answer.logged(REQUEST_TIME)).tolist()
        told = [answer.logged(name).to_pylist() for name in self._columns]
        known = [
            Known(at, end_us, line_id or 0, known_us, files or "", fingerprint, applied)
            if fingerprint is not None
            else None
            for at, _, applied, end_us, line_id, known_us, files, fingerprint in zip(at_us, *told, strict=True)
        ]
        return Vectors(keys, known)

    def _blocks(self, vectors: Vectors) -> Iterator[tuple[EventBlock, list[int]]]:
        if self.view.definition is None or not self._windows:
            return
        for keys, places in vectors.by_keys():
            times = [self._known(vectors, place).at_us for place in places]
            yield self._events.block(keys, min(times), max(times)), places

    @cached_property
    def _events(self) -> EventBlocks:
        definition, config = self._definition, self._config
        names = [name for name, _ in self.view.logged.join_keys]
        today = self.view.today
        source = EventSearch.of_source(config, definition, batch_source_of(today), transformation_of(today))
        accepted = open_accepted(definition_folder(self._repo, definition))
        kept = None if accepted is None else EventSearch.of_accepted(config, definition, accepted)
        return EventBlocks(self._clock, definition, names, list(self._windows.values()), source, kept)

    @property
    def _definition(self) -> ViewDefinition:
        assert self.view.definition is not None, "only a view that is still there is recomputed"
        return self.view.definition

    @staticmethod
    def _known(vectors: Vectors, place: int) -> Known:
        known = vectors.known[place]
        assert known is not None, "a row with a key was merged from something"
        return known

    @staticmethod
    def _key(vectors: Vectors, place: int) -> Key:
        key = vectors.keys[place]
        assert key is not None, "it was chosen by its key"
        return key

    # --- one by one -----------------------------------------------------------------------------

    def judged(self, answer: Answer) -> Verdicts:
        """Returns what is found of each feature of some rows."""
        vectors = self._vectors(answer)
        served = {f.column: answer.logged(f.column).to_pylist() for f in self.features}
        codes = {f.column: answer.logged(f"{f.column}__status").to_pylist() for f in self.features}
        agreeing = {f.column: self._agreeing(answer, f) for f in self.features}
        verdicts: Verdicts = {f.column: [Judged(DIFFERENT, False, None)] * len(answer) for f in self.features}
        found: dict[int, _Judging] = {}
        for block, places in self._blocks(vectors):
            for place in places:
                found[place] = _Judging(self, block, self._key(vectors, place), self._known(vectors, place))
                for feature in self.features:
                    told = served[feature.column][place], STATUS_NAMES.get(codes[feature.column][place], "INVALID")
                    is_agreeing = bool(agreeing[feature.column][place])
                    verdicts[feature.column][place] = found[place].judged(feature, *told, is_agreeing=is_agreeing)
        for feature in self.features:
            for place in range(len(answer)):
                if place not in found:
                    status = STATUS_NAMES.get(codes[feature.column][place], "INVALID")
                    verdicts[feature.column][place] = self._without_events(
                        served[feature.column][place],
                        status,
                        has_key=vectors.known[place] is not None,
                        is_agreeing=bool(agreeing[feature.column][place]),
                    )
        return verdicts

    def _without_events(self, value: Any, status: str, *, has_key: bool, is_agreeing: bool) -> Judged:
        """Returns what is found of a null key, or of a view that is no longer there."""
        if has_key:
            return Judged(_OLDER, not is_agreeing, None if is_agreeing else Cause.OLDER_DEFINITION)
        is_right = value is None and status == "NOT_FOUND"
        return Judged(SAME if is_right else DIFFERENT, not is_agreeing, None)

    def facts(self, key: Key, known: Known, *, is_rewritten: bool) -> WindowFacts:
        """Returns what is known beside the events, of one vector."""
        is_other = known.fingerprint != self._definition.fingerprint
        return WindowFacts(is_other, is_rewritten, self._begun_us(key), **self._facts)

    def _begun_us(self, key: Key) -> int | None:
        encoder = entity_key_encoder(self._definition.project, self._definition.join_keys)
        by_name = dict(zip([name for name, _ in self.view.logged.join_keys], key, strict=True))
        encoded = encoder.encode([by_name[name] for name in encoder.names])
        if encoded is None:
            return None
        partition = partition_of(encoded, self._config.online_store.stream_partitions)
        begun = [done for name, done in self._begun.items() if name.rpartition("/")[2] == str(partition)]
        return max(begun, default=None)

    @cached_property
    def _begun(self) -> Mapping[str, int]:
        return begun_ids(definition_folder(self._repo, self._definition))

    @property
    def windows(self) -> Mapping[str, WindowFeature]:
        """The features that are recomputed, by name."""
        return self._windows


class _Judging:
    """The judgement of one vector."""

    def __init__(self, view: WindowedView, block: EventBlock, key: Key, known: Known) -> None:
        self._view = view
        self._block = block
        self._key = key
        self._known = known
        self._values: dict[str, dict[str, Any]] = {}

    def judged(self, feature: LoggedFeature, served: Any, status: str, *, is_agreeing: bool) -> Judged:
        """Returns what is found of one feature."""
        reproduction, is_beyond = self._reproduction(feature, served, status)
        if is_agreeing:
            return Judged(reproduction, False, None)
        if reproduction.lost is not None:
            return Judged(reproduction, True, reproduction.lost)
        if not reproduction.is_equal:
            return Judged(reproduction, True, None)
        if is_beyond:
            return Judged(reproduction, True, Cause.FUTURE)
        window = self._view.windows[feature.name]
        cause = self._block.differing(self._key, self._known, window).cause(self._known)
        if cause is None and self._view.facts(self._key, self._known, is_rewritten=False).is_other:
            cause = Cause.OLDER_DEFINITION
        return Judged(reproduction, True, cause)

    def _reproduction(self, feature: LoggedFeature, served: Any, status: str) -> tuple[Reproduction, bool]:
        """Returns whether a value is what was known, and whether events beyond its time had to count for that."""
        if feature.name not in self._view.windows:
            return _OLDER, False
        if self._is_value("known", feature, served, status):
            return SAME, False
        is_rewritten = self._block.is_rewritten(self._key, self._known)
        if is_rewritten and self._is_value("by time", feature, served, status):
            return SAME, False
        if self._block.has_beyond(self._key, self._known) and self._is_value("beyond", feature, served, status):
            return SAME, True
        facts = self._view.facts(self._key, self._known, is_rewritten=is_rewritten)
        is_expired = facts.has_key_ttl and any(
            self._is_value(how, feature, served, status) for how in self._block.expiries(self._key, self._known)
        )
        start_us = min(window.start_us(self._known.at_us) for window in self._view.windows.values())
        first_us = self._block.first_kept_us(self._key)
        return why_lost(self._known, start_us, first_us, is_expired=is_expired, facts=facts), False

    def _is_value(self, how: str, feature: LoggedFeature, served: Any, status: str) -> bool:
        if how not in self._values:
            asked = self._block.asked(self._key, self._known, how)
            self._values[how] = {name: values[0] for name, values in self._block.values([asked]).items()}
        (again,) = _as_logged(feature, [self._values[how][feature.name]])
        return are_equal(served, again) and status == ("NULL_VALUE" if again is None else "PRESENT")


def _as_logged(feature: LoggedFeature, values: Sequence[Any]) -> list[Any]:
    """Returns computed values as they come back from the log."""
    listed: list[Any] = pa.array(values, stored_type(feature.type_name)).to_pylist()
    return listed
