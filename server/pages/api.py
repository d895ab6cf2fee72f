"""The catalogue as JSON: lists, searches and single objects, from the same values as the pages."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from server.limits import API_ENTRIES_MAX
from server.pages.asked import Asked
from server.pages.lineage import Node, graph_around, graph_of
from server.pages.listing import kind_of, searched
from store.catalogue import Catalogue, Entry, ObjectKind
from store.errors import InputError, shown


def catalogue(asked: Asked) -> dict[str, Any]:
    """Returns entries: all, those of a kind, or those that a search finds, the best first."""
    query = asked.request.query
    kind = kind_of(query)
    found = [each for each in asked.catalogue.search(searched(query)) if kind is None or each.kind == kind]
    offset = _count(query, "offset", 0)
    limit = min(_count(query, "limit", API_ENTRIES_MAX), API_ENTRIES_MAX)
    return {
        "project": asked.catalogue.project,
        "version": asked.catalogue.version,
        "total": len(found),
        "offset": offset,
        "entries": [_entry(each) for each in found[offset : offset + limit]],
    }


def one(kind: ObjectKind) -> Callable[[Asked], dict[str, Any]]:
    """Returns what gives one object of a kind, with what it is linked to."""

    def found(asked: Asked) -> dict[str, Any]:
        held = _named(asked.catalogue, kind).get(asked.name)
        if held is None:
            raise asked.unknown(kind, asked.name)
        return asdict(held) | _links(asked.catalogue, kind, asked.name)

    return found


def feature(asked: Asked) -> dict[str, Any]:
    """Returns one feature, with the services that ask for it."""
    view = asked.request.query.get("view", "")
    found = asked.catalogue.feature(view, asked.name)
    services = [each.name for each in asked.catalogue.services_of(view, asked.name)]
    return asdict(found) | {"reference": found.reference, "services": services}


def lineage(asked: Asked) -> dict[str, Any]:
    """Returns nodes and edges: of everything, or of what is around one object."""
    kind = kind_of(asked.request.query)
    if kind is None:
        graph = graph_of(asked.catalogue)
    else:
        if kind in {ObjectKind.FEATURE, ObjectKind.ENTITY}:
            raise InputError(f"query parameter 'kind': lineage has no {kind}; ask for its view")
        if asked.name not in _named(asked.catalogue, kind):
            raise asked.unknown(kind, asked.name)
        graph = graph_around(asked.catalogue, Node(kind, asked.name))
    return {
        "nodes": [node._asdict() for node in graph.nodes],
        "edges": [{"from": start._asdict(), "to": end._asdict()} for start, end in graph.edges],
        "left_out": graph.left_out,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    described = entry.described
    told = {
        "kind": entry.kind,
        "name": described.name,
        "detail": entry.detail,
        "description": described.description,
        "owner": described.owner,
        "tags": described.tags,
    }
    return told | {"view": entry.view} if entry.view else told


def _named(catalogue: Catalogue, kind: ObjectKind) -> Mapping[str, Any]:
    held: dict[ObjectKind, Mapping[str, Any]] = {
        ObjectKind.VIEW: catalogue.views,
        ObjectKind.SERVICE: catalogue.services,
        ObjectKind.ENTITY: catalogue.entities,
        ObjectKind.SOURCE: catalogue.sources,
        ObjectKind.TRAINING_SET: catalogue.training_sets,
    }
    return held[kind]


def _links(catalogue: Catalogue, kind: ObjectKind, name: str) -> dict[str, list[str]]:
    if kind == ObjectKind.VIEW:
        return {
            "services": [each.name for each in catalogue.services_of(name)],
            "feeds": [each.name for each in catalogue.views_from(name)],
            "training_sets": [each.name for each in catalogue.training_sets_of(view=name)],
        }
    if kind == ObjectKind.SERVICE:
        return {"training_sets": [each.name for each in catalogue.training_sets_of(service=name)]}
    if kind == ObjectKind.ENTITY:
        return {"views": [each.name for each in catalogue.views_of_entity(name)]}
    if kind == ObjectKind.SOURCE:
        return {
            "views": [each.name for each in catalogue.views_of_source(name)],
            "fed_by": [each.name for each in catalogue.sources_over(name)],
        }
    return {}


def _count(query: Mapping[str, str], name: str, otherwise: int) -> int:
    text = query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"query parameter {name!r}: {shown(text)} is no whole number from 0 on")
    return int(text)
