"""Events of logged views are kept once, whenever a worker dies, and as long as an audit may ask for them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from store.kernel.keys import partition_log_key
from store.online.stream_owners import own
from store.stream.context import StreamContext
from store.stream.ownership import LEASE_MS
from store.stream.worker import Partitions
from tests.audit.clicks_shop import ClicksShop, landed
from tests.audit.logged_shop import causes_of, different, lost_of
from tests.redis_servers import RedisServer
from tests.stores import PROJECT
from tests.stream.shop import clicks
from tests.stream.workers import lapse_leases


@pytest.fixture
def clicks_shop(tmp_path: Path, server: RedisServer) -> Iterator[ClicksShop]:
    server.client().flushall()
    shop = ClicksShop(tmp_path / "repo", server)
    yield shop
    shop.close()


def _die(shop: ClicksShop, *, has_written: bool) -> None:
    """Has a worker apply all that is logged and then die, before or after it has written files."""
    context = StreamContext(shop.repo, shop.store.config)
    partitions = Partitions(context)
    for partition in range(context.log.partitions):
        owner = context.session.hold(own(PROJECT, str(partition), "dying", LEASE_MS))
        assert owner is not None
        partitions.begin(partition, owner)
    while partitions.step():
        pass
    if has_written:
        partitions._landing.flush()
    context.close()
    lapse_leases(shop.server)


@pytest.mark.parametrize("has_written", [False, True])
def test_a_worker_that_dies_keeps_each_event_once(clicks_shop: ClicksShop, has_written: bool) -> None:
    shop = clicks_shop
    worths = [float(n) for n in range(20)]
    for worth in worths:
        shop.push(clicks([worth], user=int(worth) % 5, page=f"page {int(worth) % 3}"))
    _die(shop, has_written=has_written)
    client = shop.server.client()
    assert sum(client.xlen(partition_log_key(PROJECT, partition)) for partition in range(8)) >= len(worths), (
        "the log has them until it is recorded that they are kept"
    )
    shop.serve(list(range(5)), [f"page {n % 3}" for n in range(5)])
    shop.work()
    assert sorted(shop.accepted("by_user")) == worths
    assert sorted(shop.accepted("page_clicks")) == worths
    assert sorted(landed(shop.repo)) == worths
    told = shop.audit()
    assert (told["is_clean"], causes_of(told), lost_of(told)) == (True, {}, {})


def test_events_are_kept_for_logged_views_alone(clicks_shop: ClicksShop) -> None:
    clicks_shop.define(is_logged=False)
    clicks_shop.push(clicks([1.0]))
    clicks_shop.work()
    assert not (clicks_shop.repo / "data" / "accepted").exists()


def test_events_go_when_no_logged_vector_asks_for_them(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    shop.push(clicks([1.0]))
    shop.work()
    shop.wait(timedelta(days=31))
    shop.push(clicks([2.0], minutes=-31 * 24 * 60))
    shop.work()
    assert shop.accepted("by_user") == [1.0, 2.0], "a window of a day and its hop reach back further than the log"
    shop.wait(timedelta(days=2))
    shop.push(clicks([3.0], minutes=-33 * 24 * 60))
    shop.work()
    assert shop.accepted("by_user") == [2.0, 3.0]


def test_kept_events_are_compacted_like_landed_ones(clicks_shop: ClicksShop) -> None:
    shop = clicks_shop
    for worth in (1.0, 2.0, 3.0):
        shop.push(clicks([worth]))
        shop.work()
    shop.serve([1], ["home"])
    result = CliRunner().invoke(app, ["compact", "--repo", str(shop.repo), "by_user"])
    assert result.exit_code == 0, result.output
    assert "accepted events of by_user: merged 3 files" in result.output
    assert shop.accepted("by_user") == [1.0, 2.0, 3.0]
    shop.wait(timedelta(minutes=1))
    shop.push(clicks([4.0]))
    shop.work()
    shop.serve([1], ["home"])
    told = shop.audit()
    assert (told["is_clean"], different(told), lost_of(told)) == (True, {}, {})
    assert causes_of(told)["by_user:sum_worth_1d"] == {"late": 1}, "of the first vector"
