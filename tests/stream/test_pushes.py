"""From a push into the log, and from the log into tiles and landed files: each event once, for each of its entities."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast.data_source import PushMode

from store.errors import LogFull, OtherPush, PushedRowsError
from store.feature_store import FeatureStore
from store.online import log_appends
from store.requests import PushRequest
from store.service import StoreService
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer
from tests.stream.conftest import StartWorker, wait_until_done
from tests.stream.shop import DAY, NOW, by_page, by_user, clicks, in_tiles, landed, landed_event_ids, sums


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


@pytest.mark.anyio
@pytest.mark.parametrize("step", ["before", "after"])
async def test_a_push_to_files_with_a_key_lands_once_though_its_end_was_not_noted(
    repo: Path, shop: FeatureStore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    service = StoreService.open(repo, shop.config)
    columns = {str(name): values.tolist() for name, values in clicks([1.0, 2.0]).items()}
    request = PushRequest("clicks", columns, "offline", "a key", b"its digest")

    async def is_killed(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(StoreService, "_is_known" if step == "before" else "_remember", is_killed)
        with pytest.raises(ConnectionResetError):
            await service.push(request)
    assert landed(repo) == ([] if step == "before" else [1.0, 2.0])
    for _ in range(2):
        assert await service.push(request) == 2
    assert landed(repo) == [1.0, 2.0]
    with pytest.raises(OtherPush):
        await service.push(PushRequest("clicks", columns, "offline", "a key", b"another digest"))
    await service.close()


def test_a_windowed_view_takes_no_rows(shop: FeatureStore) -> None:
    with pytest.raises(PushedRowsError, match=r"by_user.*events over time windows.*push source"):
        shop.write_to_online_store("by_user", clicks([1.0]).assign(sum_worth_1d=1.0, count_worth_1h=1, last3=[[1.0]]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"worth": ["much", 1.0]}, ["row 0", "worth", "much"]),
        ({"user_id": [1, None]}, ["row 1", "user_id", "null"]),
        ({"page": None}, ["missing", "page"]),
        ({"colour": ["red", "red"]}, ["unknown", "colour"]),
        ({"at": [NOW, NOW + DAY]}, ["row 1", "60 s after now"]),
    ],
)
def test_nothing_of_a_push_is_in_the_log_if_one_row_does_not_fit(
    server: RedisServer, shop: FeatureStore, changes: dict[str, Any], words: list[str]
) -> None:
    frame = clicks([1.0, 2.0])
    for name, values in changes.items():
        frame = frame.drop(columns=name) if values is None else frame.assign(**{name: pd.Series(values, dtype=object)})
    with pytest.raises(PushedRowsError) as caught:
        shop.push("clicks", frame, to=PushMode.ONLINE_AND_OFFLINE)
    assert [word for word in words if word not in str(caught.value)] == []
    assert server.client().keys("*log:*") == []


def test_a_push_is_refused_whole_where_the_partition_of_any_of_its_entities_is_full(
    server: RedisServer, shop: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_appends, "LOG_ENTRIES_MAX", 1)
    shop.push("clicks", clicks([1.0], user=1, page="a"), to=PushMode.ONLINE)
    before = {key: server.client().xlen(key) for key in server.client().keys("*log:*")}
    many = pd.concat([clicks([1.0], user=user, page="b") for user in range(50)])
    with pytest.raises(LogFull, match="larder ingest"):
        shop.push("clicks", many, to=PushMode.ONLINE)
    assert {key: server.client().xlen(key) for key in server.client().keys("*log:*")} == before


@pytest.mark.anyio
async def test_an_asynchronous_push_is_a_push(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker
) -> None:
    await shop.push_async("clicks", clicks([1.0, None, 4.0]), to=PushMode.ONLINE_AND_OFFLINE)
    start_worker()
    wait_until_done(context)
    assert in_tiles(server, by_user(), [1]) == {"count_worth_1h": 2, "sum_worth_1d": 5.0, "last3": [4.0, 1.0]}
    assert landed(repo) == [1.0, None, 4.0]
    await shop._get_provider().online_store.close()


def test_a_large_push_is_cut_into_entries_and_all_of_it_counts(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker
) -> None:
    rows = 5_000
    shop.push("clicks", clicks([1.0] * rows, page="x" * 1_000), to=PushMode.ONLINE_AND_OFFLINE)
    start_worker()
    wait_until_done(context)
    assert sums(server, by_user(), "sum_worth_1d", [1]) == [float(rows)]
    assert sums(server, by_page(), "sum_worth", ["x" * 1_000]) == [float(rows)]
    assert len(landed(repo)) == rows
