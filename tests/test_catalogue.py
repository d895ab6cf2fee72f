"""The catalogue: search and links, held against naive twins."""

from hypothesis import given
from hypothesis import strategies as st

from server.pages.lineage import Graph, Node, graph_around, graph_of
from server.pages.lineage_picture import picture_of
from store.catalogue import (
    Catalogue,
    DataSource,
    Entity,
    Entry,
    Feature,
    ObjectKind,
    Selection,
    Service,
    TrainingSet,
    View,
)

WORDS = st.sampled_from(["delay", "origin", "Weather", "x", "ß", "a b"])
NAMES = st.lists(WORDS, min_size=1, max_size=2).map("_".join)


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    """Makes small registries, some of whose links lead nowhere, or in rings."""
    told = {"description": draw(WORDS), "owner": draw(WORDS)}
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    any_name = st.sampled_from([*names, "gone"])
    sources = {n: DataSource(n, tags={"k": draw(WORDS)}, batch_source=draw(any_name)) for n in names}
    views = {
        n: View(
            n, **told, sources=(draw(any_name),), inputs=tuple(draw(st.sets(any_name, max_size=2))),
            entities=(draw(any_name),),
            features=tuple(Feature(f, description=draw(WORDS), view=n) for f in {"f", draw(NAMES)}),
        )
        for n in names
    }  # fmt: skip
    services = {n: Service(n, selections=(Selection(draw(any_name), ("f",)),)) for n in names}
    sets = {n: TrainingSet(n, references=(f"{draw(any_name)}:f",), service=draw(any_name)) for n in names}
    return Catalogue("p", "1", {n: Entity(n) for n in names}, sources, views, services, sets)


@given(catalogues(), st.lists(WORDS, max_size=3))
def test_a_search_finds_just_what_matches_every_word(catalogue: Catalogue, words: list[str]) -> None:
    found = catalogue.search(" ".join(words))
    assert len(found) == len({id(entry) for entry in found})

    def text(entry: Entry) -> str:
        described = entry.described
        tags = " ".join(f"{name}:{value}" for name, value in described.tags.items())
        return f"{described.name}\0{described.owner} {tags} {entry.view}\0{described.description}".casefold()

    parts = " ".join(words).casefold().split()
    expected = [entry for entry in catalogue.entries if all(part in text(entry) for part in parts)]
    assert {id(entry) for entry in found} == {id(entry) for entry in expected}


def test_a_name_counts_for_more_than_an_owner_and_that_for_more_than_a_description() -> None:
    views = {
        "a": View("a", description="delay"), "b": View("b", owner="delay"), "c": View("c_delay"), "d": View("delay_d"),
        "delay": View("delay"),
    }  # fmt: skip
    catalogue = Catalogue("p", "", {}, {}, views, {}, {})
    assert [entry.described.name for entry in catalogue.search("DELAY")] == ["delay", "delay_d", "c_delay", "b", "a"]


@given(catalogues())
def test_links_lead_both_ways(catalogue: Catalogue) -> None:
    for name, view in catalogue.views.items():
        assert [each.name for each in catalogue.views_from(name)] == sorted(
            other.name for other in catalogue.views.values() if name in other.inputs
        )
        assert {each.name for each in catalogue.services_of(name)} == {
            service.name for service in catalogue.services.values() if service.selections[0].view == name
        }
        for source in view.sources:
            assert view in catalogue.views_of_source(source)
        for entity in view.entities:
            assert view in catalogue.views_of_entity(entity)


def reached(graph: Graph, start: Node, *, forward: bool) -> set[Node]:
    """The naive twin: goes round until nothing is new."""
    found = {start}
    while True:
        more = {
            (end if forward else begin) for begin, end in graph.edges if (begin if forward else end) in found
        } - found
        if not more:
            return found
        found |= more


@given(catalogues(), st.data())
def test_around_an_object_is_all_that_it_is_made_from_and_that_is_made_from_it(
    catalogue: Catalogue, data: st.DataObject
) -> None:
    whole = graph_of(catalogue)
    assert all(start in whole.nodes and end in whole.nodes for start, end in whole.edges)
    start = Node(ObjectKind.VIEW, data.draw(st.sampled_from(sorted(catalogue.views))))
    around = graph_around(catalogue, start)
    assert set(around.nodes) == reached(whole, start, forward=True) | reached(whole, start, forward=False)


@given(catalogues())
def test_a_picture_shows_every_node_once_and_none_over_another(catalogue: Catalogue) -> None:
    graph = graph_of(catalogue)
    picture = picture_of(catalogue, graph)
    assert sorted(each.node for each in picture.nodes) == sorted(graph.nodes)
    assert len({(each.x, each.y) for each in picture.nodes}) == len(picture.nodes)
    for one in picture.nodes:
        assert 0 <= one.x <= picture.width - picture.node_width
        assert 0 <= one.y <= picture.height - picture.node_height
        for other in picture.nodes:
            assert one is other or one.x != other.x or abs(one.y - other.y) >= picture.node_height
    assert len(picture.edges) == len(graph.edges)
