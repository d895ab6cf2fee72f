"""`larder erase` reaches rows that are on their way, and leaves those of others alone."""

from pathlib import Path

import pytest
from feast.data_source import PushMode

from store.erasure import Eraser
from store.errors import OnlineStoreTimeout
from store.feature_store import FeatureStore
from store.online.stream_log import read_entries
from store.stream.context import StreamContext
from store.stream.feeding import Feeder
from store.stream.inbox import Inbox
from store.stream.replay import all_letters
from tests.redis_servers import RedisServer
from tests.stream.conftest import StartWorker
from tests.stream.shop import by_page, by_user, clicks, landed, sums
from tests.stream.test_inboxes import INBOX, put, row


@pytest.mark.parametrize("has_worker", [False, True])
def test_an_entity_goes_from_log_inbox_letters_files_and_tiles_and_others_stay(
    repo: Path,
    server: RedisServer,
    shop: FeatureStore,
    context: StreamContext,
    start_worker: StartWorker,
    has_worker: bool,
) -> None:
    for content in (row("much", 1), row("much", 2), '{"user_id": 1', b'{"user_id": 11'):
        put(server, content)
    feeder = Feeder(context, Inbox(context, "clicks"))
    while feeder.step():
        pass
    for user in (1, 2):
        shop.push("clicks", clicks([1.0, 2.0], user), to=PushMode.ONLINE_AND_OFFLINE)
        shop.push("clicks", clicks([4.0], user), to=PushMode.ONLINE)
    if has_worker:
        start_worker()
    else:
        for user in (1, 2):
            put(server, row(8.0, user))
    eraser = Eraser(shop, "user_id=1")
    before = eraser.holdings()
    assert has_worker or (before.stream.log, before.stream.inboxes, before.stream.letters) == (3, 1, 2)
    erasure = eraser.erase()
    assert erasure.is_proven, erasure
    assert erasure.after.stream.total == 0
    assert sorted(landed(repo)) == [1.0, 2.0]
    assert sums(server, by_user(), "sum_worth_1d", [1, 2]) == [None, 7.0]
    assert len([kept for kept in all_letters(context) if kept.state == "waiting"]) == 2
    assert server.client().xlen(INBOX) == (0 if has_worker else 1)
    entries = context.session.hold(read_entries(context.log, dict.fromkeys(range(8), 0), 100))
    assert [entry for of_partition in entries.values() for entry in of_partition] == []
    assert sums(server, by_page(), "sum_worth", ["home"]) == [14.0]


def test_what_cannot_land_cannot_be_erased_and_that_is_told(
    repo: Path, shop: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.stream.lines.LINE_SECONDS_MAX", 0.2)
    shop.push("clicks", clicks([1.0]), to=PushMode.ONLINE_AND_OFFLINE)
    (repo / "data" / "clicks.parquet").unlink()
    with pytest.raises(OnlineStoreTimeout, match="larder ingest"):
        Eraser(shop, "user_id=1").erase()
