"""Where features come from and who uses them: a graph of what the catalogue holds."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from server.limits import LINEAGE_NODES_MAX
from store.catalogue import Catalogue, ObjectKind, reference_parts


class Node(NamedTuple):
    """One object."""

    kind: ObjectKind
    name: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Objects, and who takes from whom.

    Attributes:
        edges: from the one that gives to the one that takes.
        left_out: how many nodes it would have besides.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node], ...]
    left_out: int = 0


def graph_of(catalogue: Catalogue) -> Graph:
    """Returns everything, as far as one picture goes: most links first where there is more than it holds."""
    edges = _all_edges(catalogue)
    nodes = _all_nodes(catalogue)
    if len(nodes) <= LINEAGE_NODES_MAX:
        return Graph(tuple(nodes), tuple(edges))
    degrees: defaultdict[Node, int] = defaultdict(int)
    for edge in edges:
        for node in edge:
            degrees[node] += 1
    kept = sorted(nodes, key=lambda node: -degrees[node])[:LINEAGE_NODES_MAX]
    return _restricted(kept, edges, len(nodes) - len(kept))


def graph_around(catalogue: Catalogue, node: Node, feature: str = "") -> Graph:
    """Returns what an object is made from, all the way back, and all that is made from it; the nearest first.

    Args:
        feature: only what uses this feature of the view that `node` is.
    """
    edges = _all_edges(catalogue)
    if feature:
        users = {service.name for service in catalogue.services_of(node.name, feature)}
        edges = [
            (start, end)
            for start, end in edges
            if start != node
            or (end.kind == ObjectKind.SERVICE and end.name in users)
            or end.kind == ObjectKind.VIEW
            or (end.kind == ObjectKind.TRAINING_SET and _holds(catalogue, end.name, node.name, feature))
        ]
    downstream, upstream = _reached(node, edges), _reached(node, [(end, start) for start, end in edges])
    distances = downstream | upstream
    nodes = sorted(distances, key=lambda each: (distances[each], each))
    return _restricted(nodes[:LINEAGE_NODES_MAX], edges, max(0, len(nodes) - LINEAGE_NODES_MAX))


def _holds(catalogue: Catalogue, training_set: str, view: str, feature: str) -> bool:
    return any(reference_parts(each) == (view, feature) for each in catalogue.training_sets[training_set].references)


def _restricted(nodes: Sequence[Node], edges: Iterable[tuple[Node, Node]], left_out: int) -> Graph:
    kept = set(nodes)
    return Graph(tuple(sorted(kept)), tuple(e for e in edges if e[0] in kept and e[1] in kept), left_out)


def _all_nodes(catalogue: Catalogue) -> list[Node]:
    kinds: tuple[tuple[ObjectKind, Mapping[str, object]], ...] = (
        (ObjectKind.SOURCE, catalogue.sources),
        (ObjectKind.VIEW, catalogue.views),
        (ObjectKind.SERVICE, catalogue.services),
        (ObjectKind.TRAINING_SET, catalogue.training_sets),
    )
    return [Node(kind, name) for kind, named in kinds for name in named]


def _all_edges(catalogue: Catalogue) -> list[tuple[Node, Node]]:
    """Returns all links between objects that the catalogue holds, each once."""
    nodes = set(_all_nodes(catalogue))
    links = (_links_of_sources, _links_of_views, _links_of_services, _links_of_training_sets)
    edges = dict.fromkeys(edge for each in links for edge in each(catalogue))
    return [edge for edge in edges if edge[0] in nodes]


def _links_of_sources(catalogue: Catalogue) -> Iterator[tuple[Node, Node]]:
    for source in catalogue.sources.values():
        yield Node(ObjectKind.SOURCE, source.batch_source), Node(ObjectKind.SOURCE, source.name)


def _links_of_views(catalogue: Catalogue) -> Iterator[tuple[Node, Node]]:
    for view in catalogue.views.values():
        node = Node(ObjectKind.VIEW, view.name)
        behind = {catalogue.sources[each].batch_source for each in view.sources if each in catalogue.sources}
        # What stands behind another source of the view is linked to that one.
        yield from ((Node(ObjectKind.SOURCE, name), node) for name in view.sources if name not in behind)
        yield from ((Node(ObjectKind.VIEW, name), node) for name in view.inputs)


def _links_of_services(catalogue: Catalogue) -> Iterator[tuple[Node, Node]]:
    for service in catalogue.services.values():
        for selection in service.selections:
            yield Node(ObjectKind.VIEW, selection.view), Node(ObjectKind.SERVICE, service.name)


def _links_of_training_sets(catalogue: Catalogue) -> Iterator[tuple[Node, Node]]:
    for training_set in catalogue.training_sets.values():
        node = Node(ObjectKind.TRAINING_SET, training_set.name)
        if training_set.service in catalogue.services:
            yield Node(ObjectKind.SERVICE, training_set.service), node
        else:
            yield from ((Node(ObjectKind.VIEW, reference_parts(each)[0]), node) for each in training_set.references)


def _reached(start: Node, edges: Iterable[tuple[Node, Node]]) -> dict[Node, int]:
    """Returns what is reached along edges, and over how many."""
    following: defaultdict[Node, list[Node]] = defaultdict(list)
    for giver, taker in edges:
        following[giver].append(taker)
    distances = {start: 0}
    waiting = deque([start])
    while waiting:
        node = waiting.popleft()
        for each in following[node]:
            if each not in distances:
                distances[each] = distances[node] + 1
                waiting.append(each)
    return distances
