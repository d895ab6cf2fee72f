"""How long pages take to be made, for a catalogue of a thousand features: in the page process, without HTTP.

Run as `python -m bench.monitor.pages`; one JSON line a page. `first_ms` is what the first reader of a registry's new
state waits for: the catalogue is made then, and for the first chart the drawing program is loaded.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.monitor.large_registry import write_large_repo
from server.pages.messages import PageRequest
from server.pages.site import Site
from store.kernel.histograms import Histogram
from store.kernel.profiles import ColumnProfile, Kind, Numbers
from store.monitor.profile_files import ProfileFiles
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile
from store.service import StoreService

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


def measure_pages(views: int = 100, features: int = 10, repeats: int = 50) -> list[PageFigures]:
    """Returns how long each page takes for a registry of so many views of so many features."""
    with tempfile.TemporaryDirectory(prefix="larder-bench-") as folder, warnings.catch_warnings():
        # Feast says of stream views that they may change.
        warnings.simplefilter("ignore", RuntimeWarning)
        repo = write_large_repo(Path(folder) / "repo", views, features)
        _keep_profile(repo, features)
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


def _keep_profile(repo: Path, features: int) -> None:
    draw = np.random.default_rng(7)
    columns = {}
    for at in range(features):
        values = draw.normal(50, 20, 20_000)
        numbers = Numbers(Histogram.of(values), float(values.min()), float(values.max()), 50.0, 20_000 * 400.0, False)
        name = f"view_0_feature_{at}"
        columns[name] = ColumnProfile(name, "Float64", Kind.NUMBER, 20_000, 0, numbers=numbers)
    subject = Subject(SubjectKind.FEATURE_VIEW, "view_0")
    ProfileFiles(repo).append(
        SubjectProfile(rows=20_000, columns=columns, subject=subject, span=Span(0, 86_400_000_000), computed_us=1)
    )


def main(arguments: Sequence[str]) -> int:
    """Prints the figures of all pages; one that takes too long says so in its line."""
    repeats = int(arguments[0]) if arguments else 50
    for each in measure_pages(repeats=repeats):
        print(json.dumps(asdict(each)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
