"""How values look on a page: texts that may be hostile or endless, numbers, durations, instants, links."""

import math
import unicodedata
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from markupsafe import Markup

from server.limits import PAGE_TEXT_CHARS_MAX
from store.catalogue import ObjectKind

DASH: Final = "\N{EN DASH}"
"""Stands where there is no value."""

_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Categories of characters that reorder, hide or break what stands around them, or that no font has."""

_KEPT: Final = frozenset("\n\t\u200d")
"""Of these line breaks and tabs are wanted, and the joiner of emoji is harmless."""

_SECOND_US: Final = 1_000_000
_UNITS: Final = (
    (86_400 * _SECOND_US, "d"), (3_600 * _SECOND_US, "h"), (60 * _SECOND_US, "min"), (_SECOND_US, "s"),
)  # fmt: skip


def visible(text: str, chars_max: int = PAGE_TEXT_CHARS_MAX) -> str:
    """Returns a text with its invisible characters written out as escapes, cut after so many characters."""
    cut = text[: chars_max - 1] + "…" if len(text) > chars_max else text
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(_escaped(each) if unicodedata.category(each) in _INVISIBLE and each not in _KEPT else each
                   for each in cut)  # fmt: skip


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def finalized(value: Any) -> Any:
    """Returns what a template prints of a value: nothing of None, and of a text what is visible."""
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def duration(us: float) -> str:
    """Returns a duration, given in microseconds, in its two greatest units: `1 d 6 h`, `5 min`, `0.25 s`."""
    sign, left = ("-", -us) if us < 0 else ("", us)
    if left < 60 * _SECOND_US:
        return f"{sign}{left / _SECOND_US:.3g} s"
    parts: list[str] = []
    for size, unit in _UNITS:
        number, left = divmod(int(left), size)
        if number or parts:
            parts.append(f"{number} {unit}" if number else "")
        if len(parts) == 2:
            break
    return sign + " ".join(filter(None, parts))


def number(value: float | None) -> str:
    """Returns a number to five digits, thousands separated; integers whole, and a dash for none."""
    if value is None:
        return DASH
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity" if value > 0 else "-infinity"
    if 1e-4 <= abs(value) < 1e6:
        return f"{value:,.5g}" if abs(value) < 1e5 else f"{value:,.0f}"
    return f"{value:.4g}"


def share(part: float, whole: float) -> str:
    """Returns a part of a whole in percent; a dash of nothing, and never 0 % or 100 % of what is not quite that."""
    if not whole:
        return DASH
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.3g} %"


def instant(moment: datetime | int | None) -> Markup:
    """Returns an instant, given as such or in microseconds since the epoch, as HTML to the second; a dash for none."""
    if moment is None:
        return Markup("{}").format(DASH)
    try:
        at = datetime.fromtimestamp(moment / 1e6, UTC) if isinstance(moment, int) else moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return Markup("<span>{}</span>").format(f"{moment} µs since 1970")
    text = at.strftime("%Y-%m-%d %H:%M") + (at.strftime(":%S") if at.second else "")
    return Markup('<time datetime="{}">{} UTC</time>').format(at.isoformat().replace("+00:00", "Z"), text)


def sentence(text: str) -> str:
    """Returns a text with a capital in front and a full stop at its end."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) or not text else ".")


def link(kind: str, name: str, view: str = "") -> str:
    """Returns the address of an object's page; any name has one."""
    query = {"view": view, "name": name} if kind == ObjectKind.FEATURE else {"name": name}
    return f"/{kind}?{query_of(query)}"


def query_of(parameters: dict[str, Any]) -> str:
    """Returns a query string; parameters without a value are left out."""
    given = {name: value for name, value in parameters.items() if value not in {"", None}}
    return urlencode(given, quote_via=quote, errors="surrogatepass")
