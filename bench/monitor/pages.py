"""How long pages take to be made, for a catalogue of a thousand features that are monitored: in the page process.

Of every view there is a month of profiles by day and the drift of the last one, of one view a year of drift.

Run as `python -m bench.monitor.pages`; one JSON line a page. `first_ms` is what the first reader of a registry's new
state waits for: the catalogue is made then, and for the first chart the drawing program is loaded.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.monitor.large_registry import write_large_repo
from server.pages.messages import PageRequest
from server.pages.site import Site
from store.kernel.histograms import Histogram
from store.kernel.profiles import ColumnProfile, Kind, Numbers
from store.monitor.drift import DriftRequest, drift
from store.monitor.drift_files import DriftFiles
from store.monitor.profile_files import ProfileFiles
from store.monitor.settings import MonitoringSettings
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile
from store.service import StoreService

DAY_US = 86_400_000_000
PROFILED_DAYS = 29
"""The last day, and the 28 before it that `larder monitor drift` holds it against."""

ASKED_MS = 200.0
"""What a page may take; so the issue asks."""

PAGES: tuple[tuple[str, dict[str, str]], ...] = (
    ("", {}),
    ("", {"kind": "feature", "page": "5"}),
    ("", {"q": "measure 3 domain5"}),
    ("view", {"name": "view_3"}),
    ("feature", {"view": "view_0", "name": "view_0_feature_1"}),
    ("entity", {"name": "entity_0"}),
    ("source", {"name": "source_0"}),
    ("service", {"name": "service_0"}),
    ("lineage", {}),
    ("freshness", {}),
    ("drift", {}),
    ("audit", {}),
    ("lookup", {"service": "service_0"}),
    ("api/catalogue", {}),
)


@dataclass(frozen=True, slots=True)
class PageFigures:
    """How long one page took, in milliseconds."""

    page: str
    n: int
    first_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    kilobytes: float
    is_within: bool


def measure_pages(views: int = 100, features: int = 10, repeats: int = 50, days: int = 365) -> list[PageFigures]:
    """Returns how long each page takes for a registry of so many views of so many features.

    Args:
        days: of drift that one of the views has.
    """
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, warnings.catch_warnings():
        # Feast says of stream views that they may change.
        warnings.simplefilter("ignore", RuntimeWarning)
        repo = write_large_repo(Path(folder) / "repo", views, features)
        keep_monitoring(repo, views, features, days)
        service = StoreService.open(repo)
        site = Site(service)
        facts = {"freshness": _fresh(service)}
        return [_measured(site, page, query, facts, repeats) for page, query in PAGES]


def _measured(site: Site, page: str, query: dict[str, str], facts: dict[str, Any], repeats: int) -> PageFigures:
    request = PageRequest(page, query, "http://127.0.0.1:6566", now_us=1_700_000_000_000_000, facts=facts)
    took_ms = []
    size = 0
    for _ in range(repeats + 1):
        began = time.perf_counter()
        answer = site.answer(request)
        took_ms.append(1000 * (time.perf_counter() - began))
        assert answer.status == 200, answer.content
        size = len(answer.content)
    first, *others = took_ms
    p50, p99 = np.percentile(others, [50, 99])
    name = f"/{page}" + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")
    return PageFigures(
        name, repeats, round(first, 2), round(float(p50), 2), round(float(p99), 2), round(max(others), 2),
        round(size / 1024, 1), bool(p99 <= ASKED_MS),
    )  # fmt: skip


def _fresh(service: StoreService) -> list[dict[str, Any]]:
    newest_us = 1_700_000_000_000_000
    return [
        {"view": name, "offline_newest_us": newest_us - place * 10**9, "ttl_seconds": 86_400.0}
        for place, name in enumerate(service.catalogue().views)
    ]


def keep_monitoring(repo: Path, views: int, features: int, days: int) -> None:
    """Keeps what a month of daily `larder monitor profile` and `drift` leaves of all views, and more of the first."""
    draw = np.random.default_rng(7)
    files, settings = ProfileFiles(repo), MonitoringSettings()
    now_us = (PROFILED_DAYS + 1) * DAY_US
    subjects = [Subject(SubjectKind.FEATURE_VIEW, f"view_{place}") for place in range(views)]
    for subject in subjects:
        for day in range(PROFILED_DAYS):
            files.append(_profile(subject, Span(day * DAY_US, (day + 1) * DAY_US), features, draw))
    last = Span((PROFILED_DAYS - 1) * DAY_US, PROFILED_DAYS * DAY_US)
    run = drift(files, settings, DriftRequest(subjects, last), now_us)
    kept = DriftFiles(repo)
    for report in run.reports:
        kept.append(report)
    for day in range(1, days):
        span = Span(last.start_us - day * DAY_US, last.end_us - day * DAY_US)
        kept.append(replace(run.reports[0], span=span))


def _profile(subject: Subject, span: Span, features: int, draw: np.random.Generator) -> SubjectProfile:
    columns = {}
    for at in range(features):
        values = draw.normal(50, 20, 2_000)
        mean, squares = float(values.mean()), float(((values - values.mean()) ** 2).sum())
        numbers = Numbers(Histogram.of(values), float(values.min()), float(values.max()), mean, squares, False)
        name = f"{subject.name}_feature_{at}"
        columns[name] = ColumnProfile(name, "Float64", Kind.NUMBER, 2_000, 0, numbers=numbers)
    return SubjectProfile(rows=2_000, columns=columns, subject=subject, span=span, computed_us=span.end_us)


def main(arguments: Sequence[str]) -> int:
    """Prints the figures of all pages; one that takes too long says so in its line."""
    repeats = int(arguments[0]) if arguments else 50
    for each in measure_pages(repeats=repeats):
        print(json.dumps(asdict(each)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
