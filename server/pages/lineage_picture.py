"""Where the nodes of a lineage stand in a picture: in columns, so that few lines cross."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from server.pages.lineage import Graph, Node
from store.catalogue import Catalogue, ObjectKind

_NODE_WIDTH: Final = 196
_NODE_HEIGHT: Final = 26
_COLUMN: Final = 248
_ROW: Final = 36
_TOP: Final = 30
_MARGIN: Final = 2
_SWEEPS: Final = 6
"""Times that columns are put in the order of their neighbours; more hardly changes anything."""


class Placed(NamedTuple):
    """A node in a picture: its left upper corner, its number, and what it is called there."""

    node: Node
    number: int
    x: int
    y: int
    note: str
    is_middle: bool


class Edge(NamedTuple):
    """A line in a picture: between which nodes, by their numbers, and its path."""

    start: int
    end: int
    path: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph that is laid out, in pixels; columns from the sources on the left to what uses them on the right."""

    width: int
    height: int
    node_width: int
    node_height: int
    headings: tuple[tuple[int, str], ...]
    nodes: tuple[Placed, ...]
    edges: tuple[Edge, ...]
    left_out: int


def picture_of(catalogue: Catalogue, graph: Graph, middle: Node | None = None) -> Picture:
    """Returns a graph laid out in columns, so that few lines cross.

    Args:
        middle: the node that the picture is about, to be told from the others.
    """
    columns = _columns(graph)
    _order(columns, graph)
    heights = _heights(columns, graph)
    numbers = {node: number for number, node in enumerate(each for column in columns for each in column)}
    nodes = tuple(
        Placed(node, numbers[node], _MARGIN + place * _COLUMN, heights[node], _note(catalogue, node), node == middle)
        for place, column in enumerate(columns)
        for node in column
    )
    spots = {placed.node: placed for placed in nodes}
    edges = tuple(Edge(numbers[start], numbers[end], _path(spots[start], spots[end])) for start, end in graph.edges)
    return Picture(
        width=max(1, len(columns)) * _COLUMN - (_COLUMN - _NODE_WIDTH) + 2 * _MARGIN,
        height=max((placed.y for placed in nodes), default=_TOP) + _NODE_HEIGHT + 2 * _MARGIN,
        node_width=_NODE_WIDTH,
        node_height=_NODE_HEIGHT,
        headings=tuple((_MARGIN + place * _COLUMN, _heading(column)) for place, column in enumerate(columns)),
        nodes=nodes,
        edges=edges,
        left_out=graph.left_out,
    )


def _columns(graph: Graph) -> list[list[Node]]:
    """Returns the nodes by columns: sources, views, services, training sets, each as many as its chains are long."""
    givers: defaultdict[Node, list[Node]] = defaultdict(list)
    for start, end in graph.edges:
        if start.kind == end.kind:
            givers[end].append(start)
    columns: list[list[Node]] = []
    for kind in (ObjectKind.SOURCE, ObjectKind.VIEW, ObjectKind.SERVICE, ObjectKind.TRAINING_SET):
        depths: dict[Node, int] = {}
        of_kind = [node for node in graph.nodes if node.kind == kind]
        for node in of_kind:
            _depth(node, givers, depths, frozenset())
        # A source that nothing lies behind stands with those that views read.
        if kind == ObjectKind.SOURCE:
            behind = {giver for each in givers.values() for giver in each}
            depths = {n: (0 if n in behind else max(depths.values())) for n in of_kind}
        columns += [[node for node in of_kind if depths[node] == depth] for depth in sorted(set(depths.values()))]
    return columns


def _depth(node: Node, givers: Mapping[Node, list[Node]], depths: dict[Node, int], above: frozenset[Node]) -> int:
    if node not in depths:
        # A registry that somebody made by hand may hold a ring, which is cut where it closes.
        before = [each for each in givers.get(node, ()) if each not in above]
        depths[node] = max((_depth(each, givers, depths, above | {node}) + 1 for each in before), default=0)
    return depths[node]


def _order(columns: list[list[Node]], graph: Graph) -> None:
    """Sorts each column by where the neighbours of its nodes stand, back and forth."""
    neighbours = _neighbours(graph)
    for sweep in range(_SWEEPS):
        order = columns if sweep % 2 == 0 else columns[::-1]
        for before, column in pairwise(order):
            places = {node: place / max(1, len(before) - 1) for place, node in enumerate(before)}
            for node in (other for each in order if each is not before and each is not column for other in each):
                places.setdefault(node, 0.5)
            own = {node: place / max(1, len(column) - 1) for place, node in enumerate(column)}
            column.sort(key=lambda node: _mean([places[n] for n in neighbours[node] if n in places], own[node]))


def _heights(columns: Sequence[Sequence[Node]], graph: Graph) -> dict[Node, int]:
    """Returns the upper edge of each node: the longest column is packed, others stand beside their neighbours."""
    neighbours = _neighbours(graph)
    longest = max(range(len(columns)), key=lambda place: len(columns[place]), default=0)
    heights: dict[Node, float] = {}
    for place in sorted(range(len(columns)), key=lambda place: abs(place - longest)):
        column = columns[place]
        total = len(columns[longest]) if columns else 0
        wanted = [
            _mean([heights[n] for n in neighbours[node] if n in heights], at * max(1, total / len(column)))
            for at, node in enumerate(column)
        ]
        heights |= zip(column, _apart(wanted), strict=True)
    least = min(heights.values(), default=0)
    return {node: round(_TOP + (height - least) * _ROW) for node, height in heights.items()}


def _apart(wanted: Sequence[float]) -> list[float]:
    """Returns places at least 1 apart in the order given, near to those wanted: clusters that collide share the gap."""
    clusters: list[tuple[float, int]] = []
    for place in wanted:
        start, size = place, 1
        while clusters and clusters[-1][0] + clusters[-1][1] > start:
            before, count = clusters.pop()
            # Both keep their mean: each node of a cluster wants the cluster to begin so many places before it.
            start = (before * count + (start - count) * size) / (count + size)
            size += count
        clusters.append((start, size))
    return [start + at for start, size in clusters for at in range(size)]


def _neighbours(graph: Graph) -> Mapping[Node, list[Node]]:
    found: defaultdict[Node, list[Node]] = defaultdict(list)
    for start, end in graph.edges:
        found[start].append(end)
        found[end].append(start)
    return found


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _path(start: Placed, end: Placed) -> str:
    x1, y1 = start.x + _NODE_WIDTH, start.y + _NODE_HEIGHT // 2
    x2, y2 = end.x, end.y + _NODE_HEIGHT // 2
    bend = (_COLUMN - _NODE_WIDTH) // 2
    # Over several columns the line runs level until it is near its end.
    return f"M{x1},{y1}C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"


def _heading(column: Sequence[Node]) -> str:
    kind = column[0].kind
    return {
        ObjectKind.SOURCE: "Sources",
        ObjectKind.VIEW: "Feature views",
        ObjectKind.SERVICE: "Services",
        ObjectKind.TRAINING_SET: "Training sets",
    }[kind]


def _note(catalogue: Catalogue, node: Node) -> str:
    if node.kind == ObjectKind.SOURCE:
        return catalogue.sources[node.name].kind
    if node.kind == ObjectKind.VIEW:
        return catalogue.views[node.name].kind
    return "feature service" if node.kind == ObjectKind.SERVICE else "training set"
