"""What a retrieval will search: each history or set of windows, and the feature views that read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
from feast.feature_view import FeatureView

from store.kernel.windows import WindowFeature
from store.offline.searches import History
from store.offline.source_columns import NeededColumns
from store.offline.sources import Source
from store.offline.window_history import WindowHistory


@dataclass(frozen=True, slots=True)
class RequestedView:
    """A feature view of a retrieval: the features asked for, their columns in the answer, their declared types."""

    view: FeatureView
    features: tuple[str, ...]
    columns: tuple[str, ...]
    types: tuple[pa.DataType | None, ...]


@dataclass(frozen=True, slots=True)
class JoinKey:
    """A column of the entity rows, and the types that it is compared with; `owner` says for whom, in messages."""

    number: int
    column: str
    source_types: tuple[pa.DataType, ...]
    owner: str


@dataclass(frozen=True, slots=True)
class ViewPart:
    """One view's part of a history: its place in the request, and which of the fetched columns `f0..` are its own."""

    number: int
    requested: RequestedView
    ttl_us: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedHistory:
    """A history that one or more views read: the rows of one source, under the same keys and times."""

    source: Source
    keys: tuple[JoinKey, ...]
    search: History
    parts: tuple[ViewPart, ...]

    @property
    def owner(self) -> str:
        """Returns whose history it is, for people."""
        return owner_of(self.parts)

    @property
    def feature_types(self) -> list[pa.DataType]:
        """Returns the types of all features that are fetched, as far as they are declared."""
        return [kind or pa.string() for part in self.parts for kind in part.requested.types]


@dataclass(frozen=True, slots=True)
class WindowPart:
    """A windowed view's part of a search: its place in the request, and which of the features found are its own."""

    number: int
    requested: RequestedView
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlannedWindows:
    """The windowed features of one or more views: of the events of one source, under the same keys and times."""

    source: Source
    keys: tuple[JoinKey, ...]
    search: WindowHistory
    parts: tuple[WindowPart, ...]

    @property
    def owner(self) -> str:
        """Returns whose features they are, for people."""
        return owner_of(self.parts)

    @property
    def feature_types(self) -> list[pa.DataType]:
        """Returns types that take as much memory as an entity row's features do while they are looked for."""
        widths = [feature.function.kept_values for feature in self.search.features]
        return [pa.int64()] * sum(widths)

    @property
    def kept_values(self) -> int:
        """Returns how many elements the longest list of an entity row can have."""
        return max((feature.function.kept_values for feature in self.search.features), default=1)


Planned: TypeAlias = PlannedHistory | PlannedWindows


def owner_of(parts: Sequence[ViewPart | WindowPart]) -> str:
    """Returns the names of the views that are parts of a search, for people."""
    return ", ".join(repr(part.requested.view.projection.name_to_use()) for part in parts)


@dataclass(frozen=True, slots=True)
class CheckedView:
    """A view that fits its source and the entity rows.

    `columns` are the entity rows' columns of its join keys; `windows` the windowed features that are asked for, in
    order and by their columns in the file, none of a plain view.
    """

    requested: RequestedView
    source: Source
    needed: NeededColumns
    columns: tuple[str, ...]
    windows: tuple[WindowFeature, ...]
