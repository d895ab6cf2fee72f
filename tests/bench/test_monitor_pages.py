"""The benchmark of pages runs, on a small repo."""

from pathlib import Path

from bench.monitor.large_registry import write_large_repo
from bench.monitor.pages import PAGES, measure_pages
from store.service import StoreService


def test_every_page_is_measured() -> None:
    figures = measure_pages(views=8, features=3, repeats=1, days=5)
    assert len(figures) == len(PAGES)
    assert all(each.n == 1 and each.p50_ms > 0 and each.kilobytes > 1 for each in figures)


def test_a_thousand_features_are_in_the_catalogue_of_a_large_repo(tmp_path: Path) -> None:
    catalogue = StoreService.open(write_large_repo(tmp_path / "repo")).catalogue()
    assert catalogue.feature_count == 1_000
    assert not any(view.problem for view in catalogue.views.values())
    assert len(catalogue.search("view_7_feature_3")) == 1
    assert sum(view.is_windowed for view in catalogue.views.values()) == 25
