"""Charts as SVG: Vega-Lite specifications drawn in this process, cleaned, and kept by their content.

Drawing holds the interpreter (30 ms a chart, most of a second for the first), so a server's worker does not do it:
`server.pages.process` does.
"""

import json
import re
from collections import OrderedDict
from typing import Any, Final
from xml.etree import ElementTree as ET

import vl_convert
from markupsafe import Markup

from server.limits import CHARTS_KEPT_MAX
from server.pages.shown import visible

_SVG: Final = "http://www.w3.org/2000/svg"
_ELEMENTS: Final = frozenset({"svg", "g", "path", "text", "tspan", "rect", "line", "circle"})
_ATTRIBUTES: Final = frozenset({
    "class", "cx", "cy", "d", "direction", "display", "dx", "dy", "fill", "fill-opacity", "font-family", "font-size",
    "font-style", "font-weight", "height", "opacity", "r", "rx", "ry", "stroke", "stroke-dasharray", "stroke-linecap",
    "stroke-linejoin", "stroke-miterlimit", "stroke-opacity", "stroke-width", "text-anchor", "transform", "viewBox",
    "width", "x", "x1", "x2", "y", "y1", "y2",
})  # fmt: skip
"""What a chart needs. No links, styles, events, ids or anything that is fetched: what is not here is left out."""

_HARMLESS: Final = re.compile(r"[\w\s.,#()%+-]*")
"""Values of attributes: numbers, names, colours and transformations; `url(...)` has a slash or a quote in it."""


class Drawing:
    """Draws charts, and keeps those that it has drawn."""

    def __init__(self, kept_max: int = CHARTS_KEPT_MAX) -> None:
        self._kept_max = kept_max
        self._kept: OrderedDict[str, Markup] = OrderedDict()

    def chart(self, spec: dict[str, Any], label: str) -> Markup:
        """Returns a chart as an SVG element, to be put into a page; its text alternative is for the page to give.

        Args:
            label: says what it shows, for those who do not see it.
        """
        key = json.dumps([spec, label], sort_keys=True)
        kept = self._kept.get(key)
        if kept is None:
            drawn = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
            kept = cleaned(drawn, label)
            self._kept[key] = kept
            if len(self._kept) > self._kept_max:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return kept


def cleaned(svg: str, label: str) -> Markup:
    """Returns a drawn SVG with nothing in it but shapes and texts, told as one picture of a label."""
    # Names of categories come from data; what they would do, if the drawing program let them through, ends here.
    drawn = ET.fromstring(svg)  # noqa: S314 - written by our own program; no entity of a document type is defined in it
    picture = _cleaned(drawn)
    assert picture is not None, "the drawing program gives an svg element"
    picture.attrib |= {"role": "img", "aria-label": visible(label), "class": "chart"}
    ET.register_namespace("", _SVG)
    return Markup(ET.tostring(picture, encoding="unicode"))  # noqa: S704 - serialized from checked elements


def _cleaned(element: ET.Element) -> ET.Element | None:
    name = element.tag.removeprefix(f"{{{_SVG}}}")
    if name not in _ELEMENTS:
        return None
    kept = ET.Element(f"{{{_SVG}}}{name}", {
        key: value for key, value in element.attrib.items() if key in _ATTRIBUTES and _HARMLESS.fullmatch(value)
    })  # fmt: skip
    kept.text = visible(element.text) if element.text and name in {"text", "tspan"} else None
    kept.extend(child for each in element if (child := _cleaned(each)) is not None)
    return kept
