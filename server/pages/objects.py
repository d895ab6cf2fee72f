"""The page of each kind of object: view, feature, entity, source, service, training set."""

from typing import Any

from server.limits import PAGE_FEATURES_MAX
from server.pages.asked import Asked, Screen
from server.pages.code import Code, literal
from server.pages.lineage import Node, graph_around, graph_of
from server.pages.lineage_picture import Picture, picture_of
from server.pages.shown import query_of
from server.pages.standing import FreshView, fresh_views
from store.catalogue import ObjectKind, Service, TrainingSet, View, reference_parts

_LINKED_MAX = 100
"""Features of a view in the link to the form, whose address stays below what browsers and proxies take."""


def view(asked: Asked) -> Screen:
    """Returns the page of a feature view."""
    catalogue, name = asked.catalogue, asked.name
    found = catalogue.views.get(name)
    if found is None:
        raise asked.unknown(ObjectKind.VIEW, name)
    references = [feature.reference for feature in found.features]
    values = {
        "view": found,
        "features": found.features[:PAGE_FEATURES_MAX],
        "services": catalogue.services_of(name),
        "derived": catalogue.views_from(name),
        "training_sets": catalogue.training_sets_of(view=name),
        "fresh": _fresh(asked, name),
        "rates": _rates_of(asked, name),
        "profiled": asked.monitored.profiled("feature_view", name),
        "lookup_href": "/lookup?" + query_of({"features": "\n".join(references[:_LINKED_MAX])}),
        "picture": _around(asked, Node(ObjectKind.VIEW, name)),
        **asked.use(references),
    }
    return Screen("view.html", name, _for_training_only(found, values))


def _for_training_only(found: View, values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out code for lookups of what is never looked up."""
    return values if found.is_online else values | {"codes": values["codes"][:1]}


def _fresh(asked: Asked, name: str) -> FreshView | None:
    views = fresh_views(asked.request.facts, asked.request.now_us)
    return next((each for each in views if each.view == name), None)


def _rates_of(asked: Asked, name: str) -> dict[str, int]:
    rates = asked.request.facts.get("rates") or {}
    return next((each.get("statuses", {}) for each in rates.get("views", ()) if each["view"] == name), {})


def feature(asked: Asked) -> Screen:
    """Returns the page of a feature."""
    catalogue = asked.catalogue
    view_name = asked.request.query.get("view", "")
    found = catalogue.feature(view_name, asked.name)
    of = catalogue.views[view_name]
    values = {
        "feature": found,
        "view": of,
        "services": catalogue.services_of(view_name, asked.name),
        "distributions": asked.monitored.distributions(asked, found),
        "drifts": asked.monitored.drifts(asked, found),
        "lookup_href": f"/lookup?{query_of({'features': found.reference})}",
        "picture": _around(asked, Node(ObjectKind.VIEW, view_name), asked.name),
        **asked.use([found.reference]),
    }
    return Screen("feature.html", found.reference, _for_training_only(of, values))


def entity(asked: Asked) -> Screen:
    """Returns the page of an entity."""
    found = asked.catalogue.entities.get(asked.name)
    if found is None:
        raise asked.unknown(ObjectKind.ENTITY, asked.name)
    return Screen("entity.html", asked.name, {"entity": found, "views": asked.catalogue.views_of_entity(asked.name)})


def source(asked: Asked) -> Screen:
    """Returns the page of a data source."""
    found = asked.catalogue.sources.get(asked.name)
    if found is None:
        raise asked.unknown(ObjectKind.SOURCE, asked.name)
    values = {
        "source": found,
        "over": asked.catalogue.sources_over(asked.name),
        "views": asked.catalogue.views_of_source(asked.name),
        "picture": _around(asked, Node(ObjectKind.SOURCE, asked.name)),
    }
    return Screen("source.html", asked.name, values)


def service(asked: Asked) -> Screen:
    """Returns the page of a feature service."""
    found = asked.catalogue.services.get(asked.name)
    if found is None:
        raise asked.unknown(ObjectKind.SERVICE, asked.name)
    values = {
        "service": found,
        "selections": _selections(asked, found),
        "training_sets": asked.catalogue.training_sets_of(service=asked.name),
        "profiled": asked.monitored.profiled("feature_service", asked.name),
        "lookup_href": f"/lookup?{query_of({'service': asked.name})}",
        "picture": _around(asked, Node(ObjectKind.SERVICE, asked.name)),
        **asked.use([], asked.name),
    }
    return Screen("service.html", asked.name, values)


def _selections(asked: Asked, found: Service) -> list[tuple[Any, list[tuple[str, Any]]]]:
    """Returns what a service takes of each view, with the features that are registered, up to a bound in all."""
    left = PAGE_FEATURES_MAX
    selections = []
    for selection in found.selections:
        view = asked.catalogue.views.get(selection.view)
        known = {each.name: each for each in view.features} if view else {}
        names = selection.features[:left]
        left -= len(names)
        selections.append((selection, [(name, known.get(name)) for name in names]))
    return selections


def training_set(asked: Asked) -> Screen:
    """Returns the page of a saved training set."""
    found = asked.catalogue.training_sets.get(asked.name)
    if found is None:
        raise asked.unknown(ObjectKind.TRAINING_SET, asked.name)
    values = {
        "training_set": found,
        "references": [_held(asked, found, reference) for reference in found.references[:PAGE_FEATURES_MAX]],
        "profiled": asked.monitored.profiled("training_set", asked.name),
        "codes": _codes_of(asked, found),
        "picture": _around(asked, Node(ObjectKind.TRAINING_SET, asked.name)),
    }
    return Screen("training_set.html", asked.name, values)


def _held(asked: Asked, found: TrainingSet, reference: str) -> tuple[str, str, Any, str]:
    """Returns view, feature, the feature if it is registered, and its column in the training set."""
    view, name = reference_parts(reference)
    of = asked.catalogue.views.get(view)
    known = next((each for each in of.features if each.name == name), None) if of else None
    return view, name, known, f"{view}__{name}" if found.is_fully_named else name


def _codes_of(asked: Asked, found: TrainingSet) -> list[Code]:
    folder = literal(asked.service.repo_path.name)
    load = (
        f"from feast import FeatureStore\n\nstore = FeatureStore({folder})\n"
        f"training_df = store.get_saved_dataset({literal(found.name)}).to_df()\nprint(training_df)"
    )
    return [Code("Load it (Python)", "python", load)]


def lineage(asked: Asked) -> Screen:
    """Returns the page of everything's lineage."""
    graph = graph_of(asked.catalogue)
    values = {"picture": picture_of(asked.catalogue, graph), "edges": graph.edges}
    return Screen("lineage.html", "Lineage", values)


def _around(asked: Asked, node: Node, feature: str = "") -> Picture:
    return picture_of(asked.catalogue, graph_around(asked.catalogue, node, feature), node)
