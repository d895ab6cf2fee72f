"""How the store stands: freshness of views, statuses of what was looked up, the last audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from server.pages import charts
from server.pages.asked import Asked, Screen
from server.pages.shown import duration, instant, link, number
from store.catalogue import reference_parts

_CHARTED_MAX: Final = 40
"""Views in the picture of ages, the oldest; the table has them all."""

_DIFFERENCES_SHOWN: Final = 20
_SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class FreshView:
    """How fresh a view is, as a page says it; ages are '' where they are not known."""

    view: str
    offline_newest_us: int | None
    online_newest_us: int | None
    offline_problem: str
    online_problem: str
    offline_future_us: int | None
    ttl_seconds: float | None
    materialized_until_us: int | None
    now_us: int

    @property
    def offline_age(self) -> str:
        """Now less the newest event of the source."""
        return "" if self.offline_newest_us is None else duration(self.now_us - self.offline_newest_us)

    @property
    def online_age(self) -> str:
        """Now less the newest event that is served."""
        return "" if self.online_newest_us is None else duration(self.now_us - self.online_newest_us)

    @property
    def ttl(self) -> str:
        """The time to live, '' for no limit."""
        return "" if not self.ttl_seconds else duration(self.ttl_seconds * _SECOND_US)

    @property
    def is_stale(self) -> bool:
        """Whether even the newest row that is served is past its ttl."""
        if not self.ttl_seconds or self.online_newest_us is None:
            return False
        return self.now_us - self.online_newest_us > self.ttl_seconds * _SECOND_US

    @property
    def problems(self) -> list[str]:
        """Why something is not known."""
        return [each for each in (self.offline_problem, self.online_problem) if each]


def fresh_views(facts: Mapping[str, Any], now_us: int) -> list[FreshView]:
    """Returns how fresh the views are, by name, as the worker told."""
    return [
        FreshView(
            view=each["view"],
            offline_newest_us=each.get("offline_newest_us"),
            online_newest_us=each.get("online_newest_us"),
            offline_problem=each.get("offline_problem") or "",
            online_problem=each.get("online_problem") or "",
            offline_future_us=each.get("offline_future_us"),
            ttl_seconds=each.get("ttl_seconds"),
            materialized_until_us=each.get("materialized_until_us"),
            now_us=now_us,
        )
        for each in facts.get("freshness") or ()
    ]


def freshness(asked: Asked) -> Screen:
    """Returns the page of freshness and statuses."""
    facts = asked.request.facts
    ready = facts.get("ready") or {}
    views = fresh_views(facts, asked.request.now_us) if facts.get("freshness") is not None else None
    values = {
        "ready": ready.get("ready"),
        "registry_problem": (ready.get("registry") or {}).get("problem"),
        "online_problem": (ready.get("online_store") or {}).get("problem"),
        "stream": ready.get("stream"),
        "clock_note": (ready.get("clock") or {}).get("note"),
        "views": views,
        "freshness_problem": facts.get("freshness_problem"),
        **_chart(asked, views or []),
        **_rates(facts),
    }
    return Screen("freshness.html", "Freshness", values)


def _chart(asked: Asked, views: Sequence[FreshView]) -> dict[str, Any]:
    ages = [(view.view, _ages(view)) for view in views]
    known = sorted((each for each in ages if each[1]), key=lambda each: -max(each[1].values()))[:_CHARTED_MAX]
    if not known:
        return {"chart": None, "charted": 0}
    chart = asked.chart(charts.freshness(known), "Ages of the newest events of views, on a logarithmic scale")
    return {"chart": chart, "charted": len(known)}


def _ages(view: FreshView) -> dict[str, float]:
    now_us = view.now_us
    ages = {
        "offline": None if view.offline_newest_us is None else (now_us - view.offline_newest_us) / _SECOND_US,
        "online": None if view.online_newest_us is None else (now_us - view.online_newest_us) / _SECOND_US,
    }
    known = {what: age for what, age in ages.items() if age is not None}
    return known | {"ttl": view.ttl_seconds} if known and view.ttl_seconds else known


_STATUSES: Final = (
    ("PRESENT", "Present"), ("NULL_VALUE", "Null"), ("NOT_FOUND", "Not found"), ("OUTSIDE_MAX_AGE", "Too old"),
)  # fmt: skip


def _rates(facts: Mapping[str, Any]) -> dict[str, Any]:
    told = facts.get("rates") or {}
    rows = [
        {
            "view": each["view"],
            "cells": [
                *((label, number(each.get("statuses", {}).get(status, 0))) for status, label in _STATUSES),
                ("Unknown keys", number(each.get("unknown_keys"))),
            ],
        }
        for each in told.get("views", ())
    ]
    return {"rates": rows, "rates_since": told.get("since_us")}


# --- the last audit ---------------------------------------------------------------------------


def audit(asked: Asked) -> Screen:
    """Returns the page of the last audit."""
    report = asked.request.facts.get("audit")
    problems = asked.request.facts.get("audit_problems") or ()
    values = {"audit": None if report is None else audit_values(report), "problems": problems}
    return Screen("audit.html", "Last audit", values)


def audit_values(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a template needs of a report as `larder audit --json` prints it."""
    services = [_service(each) for each in report.get("services", ())]
    differences = sorted(report.get("differences", ()), key=lambda each: not each.get("is_failure"))
    count = len(differences) + (report.get("differences_left_out") or 0)
    return {
        "is_clean": report.get("is_clean"),
        "failed": sum(row["failed"] for service in services for row in service["rows"]),
        "at": _instant(report.get("ran_at")),
        "start": report.get("from"),
        "end": report.get("to"),
        "services": services,
        "difference_count": count,
        "differences": [_difference(each) for each in differences[:_DIFFERENCES_SHOWN]],
        "more": count - min(count, _DIFFERENCES_SHOWN),
    }


def _service(told: Mapping[str, Any]) -> dict[str, Any]:
    covered = told.get("coverage", {})
    note = (
        f"{number(covered.get('served'))} vectors served, {number(covered.get('logged'))} logged, "
        f"{number(covered.get('sampled_out'))} left out by sampling, {number(covered.get('dropped'))} dropped; "
        f"{number(covered.get('audited'))} audited."
    )
    rows = [_tally(each) for each in told.get("features", ())]
    return {"name": told.get("feature_service", ""), "note": note, "rows": rows}


def _tally(told: Mapping[str, Any]) -> dict[str, Any]:
    reproduction, skew = told.get("reproduction", {}), told.get("skew", {})
    causes = [f"{cause}: {number(count)}" for cause, count in skew.get("causes", {}).items()]
    if skew.get("without_cause"):
        causes.append(f"no cause: {number(skew['without_cause'])}")
    view, feature = reference_parts(told.get("feature", ""))
    return {
        "feature": told.get("feature", ""),
        "href": link("feature", feature, view) if feature else "",
        "audited": told.get("audited"),
        "reproduced": reproduction.get("equal"),
        "different": reproduction.get("different"),
        "lost": sum(reproduction.get("no_longer_known", {}).values()),
        "skew": skew.get("different"),
        "why": ", ".join(causes),
        "failed": told.get("is_clean") is False,
    }


def _instant(text: str | None) -> str:
    return instant(datetime.fromisoformat(text)) if text else ""


def _difference(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "feature": told.get("feature", ""),
        "key": ", ".join(f"{name}={value}" for name, value in told.get("key", {}).items()),
        "at": _instant(told.get("request_time")),
        "served": f"{told.get('served')}",
        "training": f"{told.get('training')}",
        "cause": told.get("cause"),
    }
