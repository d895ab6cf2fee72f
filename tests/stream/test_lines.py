"""Lines: what came before one has landed when it was waited for, with workers, without them, and on a cluster."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.aggregation import Aggregation
from feast.data_source import PushMode

from store.errors import OnlineStoreTimeout
from store.feature_store import FeatureStore
from store.online.stream_log import draw_line, read_states
from store.online.stream_owners import own, owners
from store.stream.context import StreamContext
from store.stream.lines import landed_line, wait_for_line
from store.stream.worker import Partitions
from tests.redis_servers import RedisServer, private_cluster
from tests.stores import PROJECT, config
from tests.stream.conftest import StartWorker
from tests.stream.shop import (
    COLUMNS,
    DAY,
    HOUR,
    NOW,
    PAGE,
    USER,
    by_page,
    by_user,
    clicks,
    in_tiles,
    landed,
    landed_event_ids,
    make_store,
)


@pytest.mark.parametrize("has_worker", [False, True])
def test_all_that_came_before_a_line_has_landed_and_nothing_after_it_is_below(
    repo: Path, shop: FeatureStore, context: StreamContext, start_worker: StartWorker, has_worker: bool
) -> None:
    if has_worker:
        start_worker()
    for user in range(20):
        shop.push("clicks", clicks([1.0], user), to=PushMode.ONLINE_AND_OFFLINE)
    line = landed_line(context, "by_user")
    assert landed(repo) == [1.0] * 20
    assert max(landed_event_ids(repo)) < line
    for user in range(20):
        shop.push("clicks", clicks([2.0], user), to=PushMode.ONLINE_AND_OFFLINE)
    landed_line(context, "page_clicks")
    assert sorted(landed(repo)) == [1.0] * 20 + [2.0] * 20
    assert all(event > line for event in landed_event_ids(repo)[20:])
    states = context.session.hold(read_states(context.log, range(8)))
    assert {state.lines["by_user"] for state in states} == {line}
    if not has_worker:
        # What was taken to be drained was given back.
        assert set(context.session.hold(owners(PROJECT, [str(p) for p in range(8)])).values()) == {None}


def test_a_partition_that_its_owner_does_not_work_on_is_told(shop: FeatureStore, context: StreamContext) -> None:
    assert context.session.hold(own(PROJECT, "3", "stuck", 60_000)) is not None
    line = context.session.hold(draw_line(context.log, "", context.clock.now_us()))
    with pytest.raises(OnlineStoreTimeout, match=r"partitions \[3\]"):
        wait_for_line(context, line, 0.3)


def test_events_from_before_a_column_was_there_are_nulls_in_it_and_stop_nothing(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker
) -> None:
    shop.push("clicks", clicks([1.0]), to=PushMode.ONLINE_AND_OFFLINE)
    pq.write_table(COLUMNS.append(pa.field("price", pa.float64())).empty_table(), repo / "data" / "clicks.parquet")
    by_price = by_user(
        aggregations=[
            Aggregation(column="price", function="count", time_window=HOUR, name="count_worth_1h"),
            Aggregation(column="worth", function="sum", time_window=2 * DAY, name="sum_worth_1d"),
            Aggregation(column="price", function="last_3", time_window=DAY, name="last3"),
        ]
    )
    shop.apply([USER, PAGE, by_price, by_page()])
    shop.push("clicks", clicks([2.0]).assign(price=9.0), to=PushMode.ONLINE_AND_OFFLINE)
    start_worker()
    landed_line(context, "by_user")
    assert in_tiles(server, by_price, [1]) == {"count_worth_1h": 1, "sum_worth_1d": 3.0, "last3": [9.0]}
    assert sorted(landed(repo)) == [1.0, 2.0]


def test_the_log_works_on_a_cluster(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    folder = tmp_path / "cluster"
    folder.mkdir()
    with private_cluster(folder) as nodes:
        address = ",".join(node.address for node in nodes)
        store = make_store(repo, address, redis_type="redis_cluster")
        for user in range(12):
            store.push("clicks", clicks([1.0, 2.0], user, f"page {user % 3}"), to=PushMode.ONLINE_AND_OFFLINE)
        context = StreamContext(repo, config(repo, address, redis_type="redis_cluster"))
        partitions = Partitions(context)
        for number in range(8):
            owner = context.session.hold(own(PROJECT, str(number), "w", 60_000))
            assert owner is not None
            partitions.begin(number, owner)
        while partitions.step():
            pass
        for number in range(8):
            partitions.end(number, is_lost=False)
        features = ["by_user:sum_worth_1d", "page_clicks:sum_worth"]
        found = store.get_online_features(features[:1], {"user_id": list(range(12))}).to_dict()
        assert found["sum_worth_1d"] == [3.0] * 12
        pages = store.get_online_features(features[1:], {"page": [f"page {n}" for n in range(3)]}).to_dict()
        assert pages["sum_worth"] == [12.0] * 3
        assert sorted(landed(repo)) == [1.0] * 12 + [2.0] * 12
        context.close()
        store._get_provider().online_store.close_synchronous()
