"""A feature service or feature list, compiled once into what a lookup does: keys, fields, decoders, output.

Feast's registry objects are read here and nowhere on a request's way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from feast.base_feature_view import BaseFeatureView
from feast.errors import FeastObjectNotFoundException, FeatureViewNotFoundException
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.utils import _parse_feature_ref

from store.definitions_from_feast import column_of, ttl_us, view_definition
from store.errors import InputError, TooLarge, UnknownObject
from store.kernel.codec import RowLayout
from store.kernel.decoding import Decoder
from store.kernel.definitions import Column, ViewDefinition
from store.kernel.keys import EntityKeyEncoder, entity_key_encoder
from store.limits import LOOKUP_FEATURES_MAX
from store.online.json_form import JsonForm, JsonOutput, Origin
from store.online.windows import WindowedView


@dataclass(frozen=True, slots=True)
class ServiceName:
    """Asks for a feature service by its name; what is in it, the registry says."""

    name: str


@dataclass(frozen=True, slots=True)
class ServiceLogging:
    """What a feature service's `logging_config` says: its vectors are logged to a destination.

    Attributes:
        destination: Feast's object.
        sample_rate: the share of lookups that is logged.
    """

    service: str
    destination: Any
    sample_rate: float


Asked = Sequence[str] | ServiceName
"""What a lookup asks for: references `view:feature`, or a service."""


@dataclass(frozen=True, slots=True)
class ViewRead:
    """What a lookup reads of one view.

    Attributes:
        name: the view as the request calls it (its alias, and `@v2` for a version).
        definition: the view as stored.
        encoder: of its entity keys.
        key_columns: for each join key of the encoder, the request's entity column that holds it.
        wanted: the features to read.
        version: the number that Feast gives the definition, 0 if it gives none.
    """

    name: str
    definition: ViewDefinition
    encoder: EntityKeyEncoder
    key_columns: tuple[str, ...]
    wanted: tuple[Column, ...]
    ttl_us: int
    version: int
    decoders: dict[int, Decoder] = field(default_factory=dict)

    def decoder(self, schema_tag: int, layouts: Mapping[int, RowLayout]) -> Decoder:
        """Returns the decoder for rows with a schema tag, whose layout must be known."""
        decoder = self.decoders.get(schema_tag)
        if decoder is None:
            decoder = self.decoders[schema_tag] = Decoder(layouts[schema_tag], self.wanted)
        return decoder


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Views that are read by the same entity keys, so that one command a key reads them all.

    Attributes:
        reads: the plain views, in the order in which a reply holds their rows.
        sources: their places among the plan's views.
        stored_names: their names in Redis.
        windowed: the windowed views.
        windowed_sources: their places among the plan's views.
        windowed_views: what reading them needs of their definitions.
    """

    encoder: EntityKeyEncoder
    key_columns: tuple[str, ...]
    reads: tuple[ViewRead, ...]
    sources: tuple[int, ...]
    stored_names: tuple[str, ...]
    windowed: tuple[ViewRead, ...]
    windowed_sources: tuple[int, ...]
    windowed_views: tuple[WindowedView, ...]

    @classmethod
    def all_of(cls, reads: Sequence[ViewRead]) -> "tuple[KeyGroup, ...]":
        """Returns the groups that some reads fall into."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for source, read in enumerate(reads):
            join_keys = tuple((column.name, column.type_name) for column in sorted_join_keys(read))
            groups.setdefault((read.key_columns, join_keys), []).append(source)
        return tuple(cls._of(reads, sources) for sources in groups.values())

    @classmethod
    def _of(cls, reads: Sequence[ViewRead], sources: Sequence[int]) -> "KeyGroup":
        first = reads[sources[0]]
        plain = [source for source in sources if not reads[source].definition.windows]
        windowed = [source for source in sources if reads[source].definition.windows]
        return cls(
            encoder=first.encoder,
            key_columns=first.key_columns,
            reads=tuple(reads[source] for source in plain),
            sources=tuple(plain),
            stored_names=tuple(reads[source].definition.name for source in plain),
            windowed=tuple(reads[source] for source in windowed),
            windowed_sources=tuple(windowed),
            windowed_views=tuple(WindowedView.of(reads[source].definition) for source in windowed),
        )


@dataclass(frozen=True, slots=True)
class OnDemandRead:
    """One on-demand view to compute.

    Attributes:
        name: the view as the request calls it.
        features: the features to give.
        inputs: names of its function's inputs, each with its place among the plan's columns.
    """

    name: str
    view: OnDemandFeatureView
    features: tuple[Column, ...]
    inputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class OnlinePlan:
    """A compiled lookup.

    Attributes:
        entity_columns: the join keys, by the name that the request uses, that must be given.
        request_columns: the request data that on-demand views need and that must be given.
        given_columns: all that must be given.
        views: all that is read, in the order of the request.
        groups: the same by entity key.
        columns: all feature columns, read or computed.
        origins: where each column comes from: which of the views (those read, then those computed), and which of its
            features.
        names: the name of each column in the answer.
        outputs: the columns that the caller asked for, in that order.
        json_form: the constant parts of an answer in JSON.
        logging: says that answers are logged; None if they are not.
        stored_names: the views' names in Redis.
    """

    entity_columns: Mapping[str, Column]
    request_columns: Mapping[str, Column]
    given_columns: Mapping[str, Column]
    views: tuple[ViewRead, ...]
    groups: tuple[KeyGroup, ...]
    on_demand: tuple[OnDemandRead, ...]
    columns: tuple[Column, ...]
    origins: tuple[Origin, ...]
    names: tuple[str, ...]
    outputs: tuple[int, ...]
    json_form: JsonForm
    logging: ServiceLogging | None = None
    stored_names: tuple[str, ...] = ()

    @property
    def view_versions(self) -> dict[str, int]:
        """The definition's number of each view read."""
        return _view_versions(self.views)


def _view_versions(reads: Sequence[ViewRead]) -> dict[str, int]:
    return {read.name.partition("@")[0]: read.version for read in reads}


def compile_plan(registry: BaseRegistry, project: str, features: Asked, *, full_feature_names: bool) -> OnlinePlan:
    """Returns the plan of a feature service or of a list of references `view:feature`.

    Raises:
        UnknownObject: a view, feature or service that is not registered.
        InputError: no features, a malformed reference, or two features that would have the same name.
    """
    return _Compiler(registry, project, full_feature_names=full_feature_names).compile(features)


class _Compiler:
    """Collects what is asked of each view, then lays it out."""

    def __init__(self, registry: BaseRegistry, project: str, *, full_feature_names: bool) -> None:
        self._registry = registry
        self._project = project
        self._is_versioned = bool(getattr(registry, "enable_online_versioning", False))
        self._full_feature_names = full_feature_names
        self._views: dict[str, Any] = {}
        self._places: dict[tuple[str, str], int] = {}
        self._columns: list[Column] = []
        self._names: list[str] = []
        self._logging: ServiceLogging | None = None

    def compile(self, features: Asked) -> OnlinePlan:
        asked = self._service_features(features) if isinstance(features, ServiceName) else self._listed(features)
        if not asked:
            raise InputError("no features asked for; give a feature service or references like 'view:feature'")
        if len(asked) > LOOKUP_FEATURES_MAX:
            raise TooLarge(
                f"{len(asked)} features asked for, at most {LOOKUP_FEATURES_MAX} are allowed; split the request"
            )
        outputs = tuple(self._place(view_name, feature) for view_name, feature in asked)
        self._refuse_equal_names(asked, outputs)
        on_demand = tuple(self._on_demand_reads())
        views = tuple(self._view_reads())
        request_columns = {
            name: Column(name, value_type.name)
            for read in on_demand
            for name, value_type in read.view.get_request_data_schema().items()
        }
        entity_columns = {
            column: Column(column, join_key.type_name)
            for read in views
            for column, join_key in zip(read.key_columns, sorted_join_keys(read), strict=True)
        }
        origins = self._origins(views, on_demand)
        view_of = [view_name for view_name, _ in self._places]
        parts = [JsonOutput(self._names[p], view_of[p], origins[p], self._columns[p].type_name) for p in outputs]
        return OnlinePlan(
            entity_columns=entity_columns,
            request_columns=request_columns,
            given_columns={**request_columns, **entity_columns},
            views=views,
            groups=KeyGroup.all_of(views),
            on_demand=on_demand,
            columns=tuple(self._columns),
            origins=origins,
            names=tuple(self._names),
            outputs=outputs,
            json_form=JsonForm.of(parts, _view_versions(views)),
            logging=self._logging,
            stored_names=tuple(read.definition.name for read in views),
        )

    def _service_features(self, service: ServiceName) -> list[tuple[str, str]]:
        try:
            registered = self._registry.get_feature_service(service.name, self._project, allow_cache=True)
        except FeastObjectNotFoundException as error:
            raise UnknownObject(
                f"feature service {service.name!r} is not registered in project {self._project!r}; "
                "run 'feast apply' or correct the name"
            ) from error
        if (logging := registered.logging_config) is not None:
            self._logging = ServiceLogging(service.name, logging.destination, logging.sample_rate)
        asked = []
        for projection in registered.feature_view_projections:
            view = self._load(projection.name, projection.version_tag)
            name = projection.name_to_use()
            try:
                self._views[name] = view.with_projection(projection)
            except ValueError as error:
                raise UnknownObject(
                    f"feature service {service.name!r} asks feature view {projection.name!r} for features that it no "
                    f"longer has ({error}); declare the service anew and run 'feast apply'"
                ) from error
            asked += [(name, feature.name) for feature in projection.features]
        return asked

    def _listed(self, references: Sequence[str]) -> list[tuple[str, str]]:
        asked = []
        for reference in references:
            if not isinstance(reference, str):
                raise InputError(f"feature reference {reference!r} is no text; write it as 'view:feature'")
            try:
                view_name, version, feature = _parse_feature_ref(reference)
            except ValueError as error:
                raise InputError(f"feature reference {reference!r} is malformed; write it as 'view:feature'") from error
            name = view_name if version is None else f"{view_name}@v{version}"
            if name not in self._views:
                self._views[name] = self._load(view_name, version)
            asked.append((name, feature))
        return asked

    def _load(self, name: str, version: int | None) -> Any:
        try:
            if version is None:
                view = self._registry.get_any_feature_view(name, self._project, allow_cache=True)
            else:
                view = self._registry.get_feature_view_by_version(name, self._project, version, allow_cache=True)
                view.projection.version_tag = version
        except (FeatureViewNotFoundException, FeastObjectNotFoundException) as error:
            which = f"feature view {name!r}" if version is None else f"version {version} of feature view {name!r}"
            raise UnknownObject(
                f"{which} is not registered in project {self._project!r}; run 'feast apply' or correct the name"
            ) from error
        if not getattr(view, "enabled", True):
            raise InputError(f"feature view {name!r} is disabled; enable it with 'feast feature-views enable {name}'")
        return view

    def _place(self, view_name: str, feature: str) -> int:
        """Returns the place of a feature's column, giving it one if it has none."""
        known = self._places.get((view_name, feature))
        if known is not None:
            return known
        view = self._views[view_name]
        found = next((f for f in view.projection.features if f.name == feature), None)
        if found is None:
            known_names = sorted(f.name for f in view.projection.features)
            raise UnknownObject(
                f"feature view {view_name!r} has no feature {feature!r}; it has {', '.join(known_names[:20])}"
            )
        self._places[view_name, feature] = place = len(self._columns)
        self._columns.append(column_of(found))
        self._names.append(f"{view_name}__{feature}" if self._full_feature_names else feature)
        return place

    def _refuse_equal_names(self, asked: Sequence[tuple[str, str]], outputs: Sequence[int]) -> None:
        seen: dict[str, str] = {}
        for (view_name, feature), place in zip(asked, outputs, strict=True):
            reference, name = f"{view_name}:{feature}", self._names[place]
            if name in seen:
                remedy = "ask for it once" if seen[name] == reference else "set full_feature_names"
                raise InputError(f"features {seen[name]!r} and {reference!r} would both be called {name!r}; {remedy}")
            seen[name] = reference

    def _on_demand_reads(self) -> list[OnDemandRead]:
        reads = []
        for view_name in [name for name, view in self._views.items() if _is_computed(view)]:
            view = self._views[view_name]
            features = tuple(self._columns[place] for (name, _), place in self._places.items() if name == view_name)
            inputs: list[tuple[str, str, int]] = []
            for projection in view.source_feature_view_projections.values():
                source_name = projection.name_to_use()
                if source_name not in self._views:
                    self._views[source_name] = self._load(projection.name, None).with_projection(projection)
                for feature in projection.features:
                    place = self._place_source(source_name, projection, feature.name)
                    inputs.append((feature.name, f"{projection.name}__{feature.name}", place))
            # Feast adds the other form of each name; given both, it would make a column twice.
            is_ambiguous = len({name for name, _, _ in inputs}) < len(inputs)
            named = tuple((full if is_ambiguous else short, place) for short, full, place in inputs)
            reads.append(OnDemandRead(view_name, view, features, named))
        return reads

    def _place_source(self, source_name: str, projection: Any, feature: str) -> int:
        """Returns the place of an on-demand view's input, also where the caller's own projection leaves it out."""
        view = self._views[source_name]
        if all(f.name != feature for f in view.projection.features):
            missing = next(f for f in projection.features if f.name == feature)
            view.projection.features = [*view.projection.features, missing]
        return self._place(source_name, feature)

    def _view_reads(self) -> list[ViewRead]:
        reads = []
        for view_name, view in self._views.items():
            places = [place for (name, _), place in self._places.items() if name == view_name]
            if _is_computed(view) or not places:
                continue
            definition = view_definition(self._project, view, is_versioned=self._is_versioned)
            encoder = entity_key_encoder(self._project, definition.join_keys)
            join_key_map = view.projection.join_key_map
            reads.append(
                ViewRead(
                    name=view_name,
                    definition=definition,
                    encoder=encoder,
                    key_columns=tuple(join_key_map.get(name, name) for name in encoder.names),
                    wanted=tuple(self._columns[place] for place in places),
                    ttl_us=ttl_us(view),
                    version=getattr(view, "current_version_number", None) or 0,
                )
            )
        return reads

    def _origins(self, views: Sequence[ViewRead], on_demand: Sequence[OnDemandRead]) -> tuple[Origin, ...]:
        """Returns where each column comes from; the features of a view lie in the order of their places."""
        names = [read.name for read in views] + [read.name for read in on_demand]
        source_of = {name: source for source, name in enumerate(names)}
        counts = [0] * len(source_of)
        origins = []
        for view_name, _ in self._places:
            source = source_of[view_name]
            origins.append((source, counts[source]))
            counts[source] += 1
        return tuple(origins)


def _is_computed(view: BaseFeatureView) -> bool:
    """Whether a view is computed at request time; an on-demand view stored at write time is read like others."""
    return isinstance(view, OnDemandFeatureView) and not view.write_to_online_store


def sorted_join_keys(read: ViewRead) -> list[Column]:
    """Returns the join keys of a view in the order in which its encoder takes their values."""
    return sorted(read.definition.join_keys, key=lambda column: column.name)
