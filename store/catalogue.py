"""What is registered, as plain values that link to each other: for pages, JSON and search. No Feast in it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property

from store.errors import UnknownObject, shown
from store.limits import CATALOGUE_QUERY_WORDS_MAX


class ObjectKind(StrEnum):
    """What an entry of the catalogue is."""

    VIEW = "view"
    FEATURE = "feature"
    SERVICE = "service"
    ENTITY = "entity"
    SOURCE = "source"
    TRAINING_SET = "training-set"


@dataclass(frozen=True, slots=True)
class Described:
    """What all registered objects tell about themselves."""

    name: str
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """Of what a windowed feature is an aggregate; durations in microseconds."""

    function: str
    column: str
    window_us: int
    hop_us: int


@dataclass(frozen=True, slots=True)
class Feature(Described):
    """One feature of a view; its owner is the view's."""

    view: str = ""
    type_name: str = ""
    window: Window | None = None

    @property
    def reference(self) -> str:
        """The feature as requests name it."""
        return f"{self.view}:{self.name}"


@dataclass(frozen=True, slots=True)
class Entity(Described):
    """What features are about, and by which columns it is told apart."""

    join_keys: tuple[tuple[str, str], ...] = ()
    """Columns and their types."""


@dataclass(frozen=True, slots=True)
class DataSource(Described):
    """Where rows come from.

    Attributes:
        kind: in words, such as `file source`.
        location: a path, topic or table; without passwords.
        columns: names and types, where the source declares them.
        batch_source: the source behind one that rows are pushed to or streamed from, else ''.
    """

    kind: str = ""
    location: str = ""
    timestamp_field: str = ""
    created_timestamp_column: str = ""
    field_mapping: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[tuple[str, str], ...] = ()
    batch_source: str = ""


@dataclass(frozen=True, slots=True)
class View(Described):
    """A feature view of any kind.

    Attributes:
        kind: in words, such as `stream feature view`.
        sources: what it declares as sources: one that is pushed to or streamed, its batch source, request data.
        inputs: the views that an on-demand view computes from.
        ttl_us: time to live in microseconds, 0 for no limit.
        mode, function: of a transformation, and its text.
        materialized_until: the end of the last interval that is materialized.
        problem: why its definition cannot be served as it stands, '' if it can.
    """

    kind: str = ""
    entities: tuple[str, ...] = ()
    join_keys: tuple[tuple[str, str], ...] = ()
    features: tuple[Feature, ...] = ()
    sources: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    ttl_us: int = 0
    is_online: bool = True
    mode: str = ""
    function: str = ""
    version: int = 0
    materialized_until: datetime | None = None
    created: datetime | None = None
    updated: datetime | None = None
    problem: str = ""

    @property
    def is_windowed(self) -> bool:
        """Whether its features are aggregates over time windows."""
        return any(feature.window for feature in self.features)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a service takes of one view, under which name, and which of its join keys are called otherwise."""

    view: str
    features: tuple[str, ...]
    alias: str = ""
    join_key_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Service(Described):
    """A feature service: what one model asks for.

    Attributes:
        sample_rate: the share of its lookups that is logged, None if none is.
        log_location: where to.
    """

    selections: tuple[Selection, ...] = ()
    sample_rate: float | None = None
    log_location: str = ""
    created: datetime | None = None
    updated: datetime | None = None

    @property
    def feature_count(self) -> int:
        """How many features a lookup of it answers."""
        return sum(len(selection.features) for selection in self.selections)


@dataclass(frozen=True, slots=True)
class TrainingSet(Described):
    """A training set that was saved and registered; `references` are its features, `service` may be ''."""

    references: tuple[str, ...] = ()
    join_keys: tuple[str, ...] = ()
    location: str = ""
    service: str = ""
    is_fully_named: bool = False
    earliest: datetime | None = None
    latest: datetime | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list: an object, and what is searched of it."""

    kind: ObjectKind
    described: Described
    detail: str = ""
    """A feature's type, a view's or a source's kind, the join keys of an entity."""
    haystacks: tuple[str, ...] = ()
    """Name, owner and tags, description; case folded."""

    @property
    def view(self) -> str:
        """The view of a feature, '' of anything else."""
        return self.described.view if isinstance(self.described, Feature) else ""


_EMPTY: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Catalogue:
    """Everything that one version of a registry holds of a project, by name.

    A registry may name objects that it does not hold (any more): links lead to those that it does.
    """

    project: str
    version: str
    entities: Mapping[str, Entity]
    sources: Mapping[str, DataSource]
    views: Mapping[str, View]
    services: Mapping[str, Service]
    training_sets: Mapping[str, TrainingSet]

    # --- finding one --------------------------------------------------------------------------

    def feature(self, view: str, name: str) -> Feature:
        """Returns a feature.

        Raises:
            UnknownObject: there is none of that name in the view, or no such view.
        """
        found = self._features.get((view, name))
        if found is None:
            if view not in self.views:
                raise UnknownObject(f"feature view {shown(view)} is not registered in project {self.project!r}")
            raise UnknownObject(f"feature view {shown(view)} has no feature {shown(name)}")
        return found

    @cached_property
    def _features(self) -> dict[tuple[str, str], Feature]:
        return {(view.name, each.name): each for view in self.views.values() for each in view.features}

    @property
    def feature_count(self) -> int:
        """How many features there are in all views."""
        return len(self._features)

    # --- links --------------------------------------------------------------------------------

    def views_of_entity(self, name: str) -> list[View]:
        """Returns the views that are about an entity, by name."""
        return self._named_views(view for view in self.views if name in self.views[view].entities)

    def views_of_source(self, name: str) -> list[View]:
        """Returns the views that declare a source, by name."""
        return self._named_views(self._views_by_source.get(name, _EMPTY))

    def sources_over(self, name: str) -> list[DataSource]:
        """Returns the sources that have another for their batch source, by name."""
        return [source for _, source in sorted(self.sources.items()) if source.batch_source == name]

    def views_from(self, name: str) -> list[View]:
        """Returns the on-demand views that compute from a view, by name."""
        return self._named_views(self._views_by_input.get(name, _EMPTY))

    def services_of(self, view: str, feature: str | None = None) -> list[Service]:
        """Returns the services that ask for a view, or for one feature of it, by name."""
        key = view if feature is None else (view, feature)
        return [self.services[name] for name in sorted(self._services_by.get(key, _EMPTY))]

    def training_sets_of(self, *, service: str | None = None, view: str | None = None) -> list[TrainingSet]:
        """Returns the training sets that were made of a service, or that hold features of a view, by name."""
        return [
            each
            for _, each in sorted(self.training_sets.items())
            if (service is not None and each.service == service)
            or (view is not None and any(reference_parts(r)[0] == view for r in each.references))
        ]

    def _named_views(self, names: Iterable[str]) -> list[View]:
        return [self.views[name] for name in sorted(names)]

    @cached_property
    def _views_by_source(self) -> dict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for view in self.views.values():
            for source in view.sources:
                found[source].add(view.name)
        return found

    @cached_property
    def _views_by_input(self) -> dict[str, set[str]]:
        found: defaultdict[str, set[str]] = defaultdict(set)
        for view in self.views.values():
            for name in view.inputs:
                found[name].add(view.name)
        return found

    @cached_property
    def _services_by(self) -> dict[str | tuple[str, str], set[str]]:
        found: defaultdict[str | tuple[str, str], set[str]] = defaultdict(set)
        for service in self.services.values():
            for selection in service.selections:
                found[selection.view].add(service.name)
                for feature in selection.features:
                    found[selection.view, feature].add(service.name)
        return found

    # --- searching ----------------------------------------------------------------------------

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All objects and features: kinds in their order, each by name."""
        return sorted(self._entries(), key=lambda entry: (_ORDER[entry.kind], entry.described.name, entry.view))

    def counts(self, entries: Iterable[Entry]) -> dict[ObjectKind, int]:
        """Returns how many of some entries are of each kind."""
        found = dict.fromkeys(ObjectKind, 0)
        for entry in entries:
            found[entry.kind] += 1
        return found

    def search(self, text: str) -> list[Entry]:
        """Returns the entries that match every word of a text, the best first; all of them for an empty one.

        A word matches anywhere in name, owner, tags or description, upper and lower case alike; a match in a name
        counts for more than one in an owner or tag, and that for more than one in a description. Words beyond
        `CATALOGUE_QUERY_WORDS_MAX` are left out.
        """
        words = text.casefold().split()[:CATALOGUE_QUERY_WORDS_MAX]
        if not words:
            return list(self.entries)
        ranked = [(rank, entry) for entry in self.entries if (rank := _rank(entry, words)) is not None]
        # Sorting is stable: within a rank the entries stay in their order.
        return [entry for _, entry in sorted(ranked, key=lambda each: each[0])]

    def _entries(self) -> Iterator[Entry]:
        for view in self.views.values():
            yield _entry(ObjectKind.VIEW, view, view.kind)
            for feature in view.features:
                yield _entry(ObjectKind.FEATURE, feature, feature.type_name, more=view.name)
        for service in self.services.values():
            yield _entry(ObjectKind.SERVICE, service, f"{service.feature_count} features")
        for entity in self.entities.values():
            yield _entry(ObjectKind.ENTITY, entity, ", ".join(name for name, _ in entity.join_keys))
        for source in self.sources.values():
            yield _entry(ObjectKind.SOURCE, source, source.kind, more=source.location)
        for training_set in self.training_sets.values():
            yield _entry(ObjectKind.TRAINING_SET, training_set, training_set.service, more=training_set.location)


_ORDER = {kind: place for place, kind in enumerate(ObjectKind)}


def _entry(kind: ObjectKind, described: Described, detail: str, more: str = "") -> Entry:
    tags = " ".join(f"{name}:{value}" for name, value in described.tags.items())
    texts = (described.name, f"{described.owner} {tags} {more}", described.description)
    return Entry(kind, described, detail, tuple(text.casefold() for text in texts))


def _rank(entry: Entry, words: Sequence[str]) -> tuple[int, ...] | None:
    """Returns how well an entry matches, the less the better; None if a word does not match at all."""
    ranks = []
    name = entry.haystacks[0]
    for word in words:
        place = next((place for place, text in enumerate(entry.haystacks) if word in text), None)
        if place is None:
            return None
        ranks.append(place + 2 if place else 0 if name == word else 1 if name.startswith(word) else 2)
    return max(ranks), sum(ranks)


def reference_parts(reference: str) -> tuple[str, str]:
    """Returns view and feature of a reference `view:feature`, a version `@v2` left out."""
    view, _, feature = reference.partition(":")
    return view.partition("@")[0], feature
