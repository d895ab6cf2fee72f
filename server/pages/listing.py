"""The first page: what wants attention, and the catalogue with its search."""

from collections.abc import Iterator, Mapping
from typing import Any

from server.limits import PAGE_QUERY_CHARS_MAX, PAGE_ROWS_MAX
from server.pages.asked import Asked, Screen
from server.pages.shown import link, query_of
from server.pages.standing import FreshView, fresh_views
from store.catalogue import ObjectKind
from store.errors import InputError, shown

_TABS = {
    ObjectKind.VIEW: "Feature views",
    ObjectKind.FEATURE: "Features",
    ObjectKind.SERVICE: "Services",
    ObjectKind.ENTITY: "Entities",
    ObjectKind.SOURCE: "Sources",
    ObjectKind.TRAINING_SET: "Training sets",
}
_ATTENTION_MAX = 8


def catalogue(asked: Asked) -> Screen:
    """Returns the catalogue: one kind of objects, or what a search finds of one kind or all."""
    query = asked.request.query
    text = searched(query)
    kind = kind_of(query)
    found = asked.catalogue.search(text)
    counts = asked.catalogue.counts(found)
    if kind is None and not text:
        kind = ObjectKind.VIEW
    rows = found if kind is None else [entry for entry in found if entry.kind == kind]
    pages = max(1, -(-len(rows) // PAGE_ROWS_MAX))
    page = page_of(query, pages)

    def page_href(number: int) -> str:
        return f"/?{query_of({'q': text, 'kind': query.get('kind', ''), 'page': number})}"

    tabs = [
        {"text": words, "count": counts[each], "is_here": each == kind,
         "href": f"/?{query_of({'q': text, 'kind': str(each)})}"}
        for each, words in _TABS.items()
    ]  # fmt: skip
    if text:
        everything = {"text": "All", "count": len(found), "is_here": kind is None, "href": f"/?{query_of({'q': text})}"}
        tabs.insert(0, everything)
    values = {
        "searched": text,
        "attention": [] if text or query else list(_attention(asked))[:_ATTENTION_MAX],
        "tabs": tabs,
        "detail": "Type" if kind == ObjectKind.FEATURE else "Kind",
        "rows": rows[(page - 1) * PAGE_ROWS_MAX : page * PAGE_ROWS_MAX],
        "page": page,
        "pages": pages,
        "page_href": page_href,
        "caption": f"{_TABS[kind] if kind else 'Everything'}{' that match' if text else ''}",
    }
    return Screen("catalogue.html", "Search" if text else "Catalogue", values)


def searched(query: Mapping[str, str]) -> str:
    """Returns the text that is searched for."""
    return " ".join(query.get("q", "")[:PAGE_QUERY_CHARS_MAX].split())


def kind_of(query: Mapping[str, str]) -> ObjectKind | None:
    """Returns the kind of objects that is asked for, None for all.

    Raises:
        InputError: there is no such kind.
    """
    kind = query.get("kind", "")
    if kind and kind not in set(ObjectKind):
        raise InputError(f"query parameter 'kind': {shown(kind)} is none of {sorted(map(str, ObjectKind))}")
    return ObjectKind(kind) if kind else None


def page_of(query: Mapping[str, str], pages: int) -> int:
    """Returns the page that is asked for, counted from 1; the last one for any beyond it.

    Raises:
        InputError: it is no number, or below 1.
    """
    text = query.get("page", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise InputError(f"query parameter 'page': {shown(text)} is no page; the first one is 1")
    return min(int(text), pages)


def _attention(asked: Asked) -> Iterator[dict[str, Any]]:
    """Yields what somebody should look at today, the worst first."""
    facts = asked.request.facts
    ready = facts.get("ready") or {}
    for name, what in (("online_store", "Redis"), ("registry", "Registry"), ("stream", "Event log")):
        problem = (ready.get(name) or {}).get("problem")
        if problem:
            yield {"level": "bad", "what": what, "text": problem}
    audit = facts.get("audit")
    if audit and audit.get("is_clean") is False:
        yield {
            "level": "bad",
            "what": "Audit",
            "name": "Last audit",
            "href": "/audit",
            "text": "found differences that nothing explains",
        }
    for report in asked.monitored.summaries(asked):
        if report["alarms"]:
            yield {"level": "bad", "what": "Drift", "name": report["name"], "href": report["href"] or "/drift",
                   "text": report["alarm_text"]}  # fmt: skip
    for view in fresh_views(facts, asked.request.now_us):
        yield from _attention_to(view)
    for each in asked.catalogue.views.values():
        if each.problem:
            yield {"level": "warn", "what": "Definition", "name": each.name, "href": link("view", each.name),
                   "text": each.problem}  # fmt: skip


def _attention_to(view: FreshView) -> Iterator[dict[str, Any]]:
    told = {"level": "warn", "name": view.view, "href": link("view", view.view)}
    for problem in view.problems:
        yield told | {"what": "Problem", "text": problem}
    if view.is_stale:
        yield told | {"what": "Stale", "text": f"its newest row online is {view.online_age} old, its ttl is {view.ttl}"}
