"""Random lives of a store of windows: every vector that was served is reproduced, and every skew has its cause.

The life is that of `tests.stream.test_one_answer`: events late, early, out of order, twice, online only, forwarded to a
second entity, at the edges of hops; materializations up to any END; workers that come and go, at random also between a
push and a lookup. Here each lookup is logged, and the audit at the end judges them all.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureService
from feast.data_source import PushMode
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.types import Int64, String

from cli.audit import as_json
from store.audit.audit import audit
from store.audit.log import Span
from store.clock import from_us
from store.definitions_from_feast import view_definition
from store.kernel.judging import Cause
from store.kernel.keys import entity_key_encoder, stream_tiles_key
from store.requests import LookupRequest
from store.service import StoreService
from tests.audit.logged_shop import causes_of, different, features_of, lost_of
from tests.redis_servers import RedisServer
from tests.stores import PROJECT, yaml_of
from tests.stream.shop import PAGE, USER
from tests.stream.test_one_answer import PAGES, USERS, Scenario, view

KEYS = USERS + 1


class LoggedScenario(Scenario):
    """A life whose lookups are logged."""

    def __init__(self, repo: Path, redis_url: str, seed: int, *, is_external: bool) -> None:
        super().__init__(repo, redis_url, seed, is_external=is_external)
        (repo / "feature_store.yaml").write_text(yaml_of(redis_url))
        views = [
            view("by_user", USER, "user_id", Int64, is_external=is_external),
            view("by_page", PAGE, "page", String, is_external=is_external),
        ]
        logging = LoggingConfig(FileLoggingDestination(path="data/served/clicks"), sample_rate=1.0)
        self.store.apply([FeatureService(name="clicks", features=views, logging_config=logging)])
        self.lookups = 0

    def live(self, steps: int) -> None:
        """Lets time pass and things happen, and looks up after each of them, worked on or not."""
        for _ in range(steps):
            self._go_on()
            self.rng.choice([self._push, self._push, self._push, self._push, self._materialize, self._reopen])()
            if self.rng.random() < 0.6:
                self._work()
            self.look_up()

    def look_up(self) -> None:
        """Looks up all users and pages as a server does."""

        async def serve() -> None:
            service = StoreService.open(self.repo)
            await service.start()
            entities = {
                "user_id": list(range(1, KEYS + 1)),
                "page": [f"page {1 + number % (PAGES + 1)}" for number in range(KEYS)],
            }
            await service.lookup(LookupRequest(entities=entities, feature_service="clicks", full_feature_names=True))
            await service.close()

        asyncio.run(serve())
        self.lookups += 1


@pytest.fixture
def scenario(tmp_path: Path, server: RedisServer, request: pytest.FixtureRequest) -> Iterator[LoggedScenario]:
    seed, is_external = request.param
    server.client().flushall()
    scenario = LoggedScenario(tmp_path / "repo", server.url, seed, is_external=is_external)
    yield scenario
    scenario.close()


def _judge(scenario: LoggedScenario) -> set[str]:
    told = as_json(audit(scenario.store, ["clicks"], Span()))
    assert different(told) == {}, told["differences"][:5]
    assert {feature["audited"] for feature in features_of(told).values()} == {KEYS * scenario.lookups}
    causes = {cause for of_feature in causes_of(told).values() for cause in of_feature}
    assert "None" not in causes, [each for each in told["differences"] if each["cause"] is None][:5]
    lost = {cause for of_feature in lost_of(told).values() for cause in of_feature}
    # The user's own job writes its file anew each time.
    assert lost <= ({Cause.SOURCE_REWRITTEN} if scenario.is_external else set()), lost
    assert told["is_clean"] is True
    return causes


@pytest.mark.parametrize("scenario", [(1, False), (2, True)], indirect=True, ids=str)
def test_every_vector_is_reproduced(scenario: LoggedScenario) -> None:
    scenario.live(9)
    assert _judge(scenario)


@pytest.mark.long
@pytest.mark.parametrize("scenario", [(n, n % 4 == 1) for n in range(10, 24)], indirect=True, ids=str)
def test_every_vector_is_reproduced_for_long(scenario: LoggedScenario) -> None:
    scenario.live(30)
    assert len(_judge(scenario)) > 1


@pytest.mark.parametrize("scenario", [(3, False)], indirect=True, ids=str)
def test_an_event_lost_in_the_middle_of_a_life_is_found(scenario: LoggedScenario, server: RedisServer) -> None:
    scenario.live(4)
    now = from_us(scenario.now_us)
    row = {"user_id": [1], "page": ["page 1"], "at": [now], "created": [now], "worth": [7.25]}
    scenario.store.push("clicks", pd.DataFrame(row), to=PushMode.ONLINE_AND_OFFLINE)
    scenario._work()
    definition = view_definition(PROJECT, scenario.store.get_stream_feature_view("by_user"))
    key = entity_key_encoder(PROJECT, definition.join_keys).encode([1])
    assert key is not None
    tiles = stream_tiles_key(key, "by_user", definition.fingerprint)
    newest = max(name for name in server.client().hkeys(tiles) if name and name[1:2] == b"\x00")
    assert server.client().hdel(tiles, newest) == 1
    scenario.look_up()
    told = as_json(audit(scenario.store, ["clicks"], Span()))
    assert told["is_clean"] is False
    assert {name for name, count in different(told).items() if count} >= {"by_user:count_10m", "by_user:sum_2d"}
    assert {each["key"]["user_id"] for each in told["differences"] if each["judgement"] == "reproduction"} == {1}
