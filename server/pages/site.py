"""From a request for a page to the page: which screen, which template, and what templates can use."""

import http
import shlex
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from server.limits import PAGE_NAME_CHARS_MAX, PAGE_SUMMARY_CHARS_MAX
from server.pages import api, assets, charts, drift_page, listing, lookup_page, objects, shown, standing
from server.pages.asked import Asked, Screen
from server.pages.drawing import Drawing
from server.pages.messages import PageAnswer, PageRequest
from server.pages.monitored import Monitored
from store.catalogue import Entry, ObjectKind
from store.errors import RegistryUnavailable
from store.service import StoreService

HTML = "text/html; charset=utf-8"
JSON = "application/json"
_SIMILAR_MAX = 8
_LIKENESS = 0.75
"""From which share of equal characters on, as difflib counts them, a name is told."""

SCREENS: dict[str, Callable[[Asked], Screen]] = {
    "": listing.catalogue,
    "view": objects.view,
    "feature": objects.feature,
    "entity": objects.entity,
    "source": objects.source,
    "service": objects.service,
    "training-set": objects.training_set,
    "lineage": objects.lineage,
    "freshness": standing.freshness,
    "drift": drift_page.drift,
    "audit": standing.audit,
    "lookup": lookup_page.lookup,
}
"""What each page shows, by its path without the slash in front."""

ANSWERS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "api/catalogue": api.catalogue,
    "api/feature": api.feature,
    "api/lineage": api.lineage,
    **{
        f"api/{kind}": api.one(kind)
        for kind in (
            ObjectKind.VIEW, ObjectKind.SERVICE, ObjectKind.ENTITY, ObjectKind.SOURCE, ObjectKind.TRAINING_SET,
        )
    },
}  # fmt: skip
"""What is answered as JSON."""


def environment() -> Environment:
    """Returns what templates are rendered with: all texts are escaped, and an unknown name is an error."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown.finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters |= {
        "short": _short,
        "summary": partial(shown.visible, chars_max=PAGE_SUMMARY_CHARS_MAX),
        "duration": shown.duration,
        "number": shown.number,
        "instant": shown.instant,
    }
    env.globals |= {
        "link": shown.link,
        "query_of": shown.query_of,
        "asset": assets.address,
        "profile_command": profile_command,
        "drift_command": drift_command,
    }
    return env


def _short(text: str, chars_max: int = PAGE_NAME_CHARS_MAX) -> str:
    return shown.visible(text, chars_max)


def profile_command(kind: str, name: str) -> str:
    """Returns the command that profiles a subject, all of them for ''."""
    return _command("larder monitor profile", kind, name)


def drift_command(kind: str, name: str) -> str:
    """Returns the command that measures drift of a subject, of all of them for ''."""
    return _command("larder monitor drift", kind, name)


_OPTIONS = {
    "feature_view": "--view", "feature_service": "--service", "training_set": "--training-set",
    "push_source": "--push-source",
}  # fmt: skip


def _command(command: str, kind: str, name: str) -> str:
    return f"{command} {_OPTIONS[kind]} {shlex.quote(name)}" if kind else command


class Site:
    """Makes the pages of one feature repo."""

    def __init__(self, service: StoreService) -> None:
        self._service = service
        self._env = environment()
        self._drawing = Drawing()
        self._monitored = Monitored(service.repo_path)

    def answer(self, request: PageRequest) -> PageAnswer:
        """Returns a page, or an answer of the JSON API.

        Raises:
            LarderError: there is no such object, or a parameter is not right.
        """
        asked = Asked(request, self._service.catalogue(), self._service, self._drawing, self._monitored)
        if request.page in ANSWERS:
            return PageAnswer(200, JSON, msgspec.json.encode(ANSWERS[request.page](asked)))
        screen = SCREENS[request.page](asked)
        status = (request.facts.get("lookup") or {}).get("status", 200)
        return self._rendered(request, status, screen)

    def warm(self) -> None:
        """Draws a chart that nobody sees: the first one takes most of a second."""
        self._drawing.chart(charts.histogram(charts.Bars((), ())), "")

    def refusal(self, request: PageRequest, status: int, detail: str) -> PageAnswer:
        """Returns what is said in the place of a page: why there is none, and how to go on."""
        sayable = detail.encode("utf-8", "backslashreplace").decode()
        if request.page in ANSWERS:
            return PageAnswer(status, JSON, msgspec.json.encode({"detail": sayable}))
        guess = request.query.get("name", "") or request.query.get("q", "")
        heading = "Not found" if status == 404 else http.HTTPStatus(status).phrase
        values = {
            "heading": heading,
            "detail": sayable,
            "similar": self._similar(guess) if status == 404 else [],
            "guess": guess[:PAGE_NAME_CHARS_MAX],
        }
        return self._rendered(request, status, Screen("refusal.html", heading, values))

    def _similar(self, name: str) -> list[Entry]:
        """Returns what a wrong name may have meant: entries that hold its words, and names that are spelled alike."""
        try:
            catalogue = self._service.catalogue()
        except RegistryUnavailable:
            return []
        words = name[:PAGE_NAME_CHARS_MAX].replace("_", " ").replace(":", " ").split()
        found = catalogue.search(" ".join(words)) if words else []
        by_name = {entry.described.name: entry for entry in reversed(catalogue.entries)}
        for text in (name[:PAGE_NAME_CHARS_MAX], *words):
            found += [by_name[each] for each in get_close_matches(text, by_name, _SIMILAR_MAX, _LIKENESS)]
        return list({id(entry): entry for entry in found}.values())[:_SIMILAR_MAX]

    def _rendered(self, request: PageRequest, status: int, screen: Screen) -> PageAnswer:
        try:
            catalogue = self._service.catalogue()
        except RegistryUnavailable:
            catalogue = None
        values = {
            "title": screen.title,
            "project": self._service.project,
            "catalogue": catalogue,
            "version": catalogue.version if catalogue else "",
            "user": request.user,
            "here": f"/{request.page}",
            # To the minute, so that a page that has not changed is the same text.
            "now_us": request.now_us // 60_000_000 * 60_000_000,
            **screen.values,
        }
        html = self._env.get_template(screen.template).render(values)
        return PageAnswer(status, HTML, html.encode("utf-8", "backslashreplace"))
