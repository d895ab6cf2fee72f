"""What a screen works with: the request, the catalogue, and what is monitored."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from server.limits import PAGE_FEATURES_MAX
from server.pages.code import Asking, Code, code_for
from server.pages.drawing import Drawing
from server.pages.messages import PageRequest
from server.pages.monitored import Monitored
from store.catalogue import Catalogue, ObjectKind
from store.errors import LarderError, UnknownObject, shown
from store.kernel.definitions import Column
from store.limits import LOOKUP_FEATURES_MAX
from store.service import StoreService

_TYPES = {kind: str(kind).replace("-", " ") for kind in ObjectKind}


@dataclass(frozen=True, slots=True)
class Screen:
    """What a page shows: a template and what it is filled with."""

    template: str
    title: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a page, and all that is needed to answer it."""

    request: PageRequest
    catalogue: Catalogue
    service: StoreService
    drawing: Drawing
    monitored: Monitored

    @property
    def name(self) -> str:
        """The name of the object that is asked for."""
        return self.request.query.get("name", "")

    def chart(self, spec: dict[str, Any], label: str) -> Markup:
        """Returns a chart as SVG."""
        return self.drawing.chart(spec, label)

    def use(self, references: list[str], service: str = "") -> dict[str, Any]:
        """Returns the code to copy for features or a service, and what lookups of it have to give.

        Shapes: `codes`; `given`, columns by name; `code_problem`, why there is no code, else ''.
        """
        asked = references[: min(LOOKUP_FEATURES_MAX, PAGE_FEATURES_MAX)]
        try:
            given = self.service.given_columns([] if service else asked, service or None)
        except LarderError as error:
            return {"codes": [], "given": {}, "code_problem": str(error)}
        return {"codes": self._codes(asked, service, dict(given)), "given": given, "code_problem": ""}

    def _codes(self, references: list[str], service: str, given: dict[str, Column]) -> list[Code]:
        return code_for(
            Asking(
                references=references,
                service=service,
                given=given,
                folder=self.service.repo_path.name,
                base_url=self.request.base_url,
                now_us=self.request.now_us,
                has_tokens=self.request.has_tokens,
            )
        )

    def unknown(self, kind: ObjectKind, name: str) -> UnknownObject:
        """Returns the error for an object that is not registered."""
        return UnknownObject(
            f"{_TYPES[kind]} {shown(name)} is not registered in project {self.catalogue.project!r}; correct the name, "
            "or run 'feast apply' if it was declared since"
        )
