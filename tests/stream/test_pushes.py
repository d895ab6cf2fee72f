"""From a push into the log, and from the log into tiles and landed files: each event once, for each of its entities."""

from pathlib import Path

import pytest
from feast.data_source import PushMode

from store.feature_store import FeatureStore
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer
from tests.stream.conftest import StartWorker, wait_until_done
from tests.stream.shop import by_page, by_user, clicks, landed, landed_event_ids, sums


@pytest.mark.parametrize("to", [PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE])
def test_each_event_counts_once_for_each_of_its_entities_and_lands_if_it_shall(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker, to: PushMode
) -> None:
    for user in range(20):
        shop.push("clicks", clicks([1.0, 2.0], user, f"page {user % 7}"), to=to)
    start_worker()
    wait_until_done(context)
    assert sums(server, by_user(), "sum_worth_1d", range(20)) == [3.0] * 20
    assert sums(server, by_user(), "count_worth_1h", range(20)) == [2] * 20
    assert sums(server, by_page(), "sum_worth", [f"page {n}" for n in range(7)]) == [9.0] * 6 + [6.0]
    lands = to is PushMode.ONLINE_AND_OFFLINE
    assert sorted(landed(repo)) == ([1.0] * 20 + [2.0] * 20 if lands else [])
    assert len(set(landed_event_ids(repo))) == (40 if lands else 0)
    assert context.letters == 0
    assert [key for key in server.client().keys("*log:*") if server.client().xlen(key)] == []
