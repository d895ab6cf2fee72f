"""Fixtures: a shop that is looked at, with profiles, drift and an audit kept, and servers on it."""

import json
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from server.auth import digest_of
from store.monitor.audits import AuditFiles
from store.monitor.profile_files import ProfileFiles
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile
from tests import warm
from tests.server.conftest import TOKENS
from tests.server.live import LiveServer, environment, serving
from tests.server.pages.shop import HOSTILE, NOW, column, texts, write_shop


def us(days: int) -> int:
    """Midnight so many days ago, in microseconds."""
    return int((NOW.replace(hour=0, minute=0, second=0) - timedelta(days=days)).timestamp() * 1e6)


def keep_profiles(repo: Path) -> None:
    """Keeps profiles of three days: the last of them is not like the first; and one of the hostile corner."""
    files = ProfileFiles(repo)
    for day, low in ((3, 0), (2, 1), (1, 60)):
        columns = [
            column("total", [float(each + low) for each in range(100)] * 5),
            column("visits", [float(each % 7) for each in range(500)]),
            texts("city", {"york": 300 + low, HOSTILE[0]: 100, HOSTILE[3]: 50, "": 20, "x" * 300: 10}),
        ]
        files.append(_profile("spending", day, columns))
    for text in HOSTILE:
        files.append(_profile(f"{text} view", 1, [column(text, [1.0, 2.0])]))


def _profile(view: str, day: int, columns: list) -> SubjectProfile:
    return SubjectProfile(
        rows=500, columns={each.name: each for each in columns}, subject=Subject(SubjectKind.FEATURE_VIEW, view),
        span=Span(us(day), us(day - 1)), computed_us=us(day - 1),
    )  # fmt: skip


def measure_drift(repo: Path) -> None:
    """Runs the real `larder monitor drift` twice, each day against the first."""
    for day in (2, 1):
        span = [f"--{name}={NOW.date() - timedelta(days=ago)}" for name, ago in
                (("from", day), ("to", day - 1), ("reference-from", 3), ("reference-to", 2))]  # fmt: skip
        process = warm.begin(
            "larder", "monitor", "drift", "--view=spending", "--no-webhook", f"--repo={repo}", *span,
            environ=environment(),
        )  # fmt: skip
        assert process.wait(60) in {0, 1}
        assert process.stderr is not None
        process.stderr.close()


def keep_audit(repo: Path) -> None:
    """Keeps the report of an audit that failed."""
    tally = {
        "feature": f"spending:{HOSTILE[0]}", "type": "DOUBLE", "audited": 10, "is_clean": False,
        "reproduction": {"equal": 9, "different": 1, "no_longer_known": {}},
        "skew": {"equal": 8, "different": 2, "causes": {"late": 1}, "without_cause": 1},
    }  # fmt: skip
    difference = {
        "judgement": "reproduction", "feature_service": "checkout", "feature": "spending:total", "request_id": "r",
        "request_time": NOW.isoformat(), "key": {"customer_id": HOSTILE[1]}, "status": "PRESENT", "served": 1.5,
        "training": HOSTILE[0], "cause": None, "is_failure": True,
    }  # fmt: skip
    service = {"feature_service": "checkout", "coverage": {"served": 10, "logged": 10}, "features": [tally]}
    report = {"is_clean": False, "from": None, "to": None, "ran_at": NOW.isoformat(), "services": [service],
              "differences": [difference], "differences_left_out": 3}  # fmt: skip
    AuditFiles(repo).append(report)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The applied repo, with everything that monitoring keeps, and a saved training set."""
    from feast import FeatureStore
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
    from pandas import DataFrame

    repo = write_shop(tmp_path_factory.mktemp("pages") / "shop_repo")
    store = FeatureStore(str(repo))
    rows = DataFrame({"customer_id": [1, 2], "event_timestamp": [NOW, NOW], "basket_value": [5.0, 6.0]})
    job = store.get_historical_features(rows, store.get_feature_service("checkout"))
    with warnings.catch_warnings():
        # Feast says of this call that it may change.
        warnings.simplefilter("ignore", RuntimeWarning)
        storage, tags = SavedDatasetFileStorage("data/till"), {"for": HOSTILE[0]}
        store.create_saved_dataset(job, "till_2", storage, tags, store.get_feature_service("checkout"))
    keep_profiles(repo)
    measure_drift(repo)
    keep_audit(repo)
    return repo


@pytest.fixture(scope="session")
def pages(shop: Path) -> Iterator[LiveServer]:
    """A server without tokens, its rows materialized."""
    with serving(shop) as live:
        body = {"start_ts": "2000-01-01", "end_ts": "2100-01-01", "feature_views": ["spending"]}
        done = live.post("/materialize", body)
        assert done.status_code == 200, done.text
        yield live


@pytest.fixture(scope="session")
def closed(shop: Path, pages: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with a token for each scope, on the same repo."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    entries = [{"name": scope, "sha256": digest_of(token), "scopes": [scope]} for scope, token in TOKENS.items()]
    path.write_text(json.dumps(entries))
    with serving(shop, environ={"LARDER_TOKENS_FILE": str(path)}) as live:
        yield live
