"""Workers beside each other: shares that follow joins and leaves, places taken over, and rows that do not fit."""

import contextlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.data_source import PushMode

from store.errors import OwnershipLost
from store.feature_store import FeatureStore
from store.kernel.keys import owner_key
from store.kernel.log_entries import Events, encode_events
from store.offline.compaction import compact
from store.offline.logged_rows import landed_ids
from store.offline.sources import open_source
from store.online.client import RedisSession
from store.online.log_appends import LoggedEntry, PartitionAppend, append
from store.online.stream_log import read_entries, read_states
from store.online.stream_owners import own, owners
from store.stream import landing
from store.stream.context import StreamContext
from store.stream.replay import all_letters
from store.stream.worker import Partitions
from tests.redis_servers import RedisServer, poll_until
from tests.stores import PROJECT
from tests.stream.conftest import StartWorker, wait_until_done
from tests.stream.shop import (
    COLUMNS,
    LANDED,
    NOW,
    by_page,
    by_user,
    clicks,
    clicks_source,
    landed,
    landed_event_ids,
    last_click,
    make_store,
    sums,
)


def owners_of(context: StreamContext) -> list[str | None]:
    held = context.session.hold(owners(PROJECT, [str(p) for p in range(context.log.partitions)]))
    return [owner and owner.worker for owner in held.values()]


def test_workers_share_the_partitions_and_follow_joins_and_leaves(
    context: StreamContext, shop: FeatureStore, server: RedisServer, start_worker: StartWorker
) -> None:
    first = start_worker()
    poll_until(lambda: owners_of(context) == [first.name] * 8, what="one has all")
    second = start_worker()
    poll_until(lambda: sorted(map(str, owners_of(context))) == sorted([first.name, second.name] * 4), what="half each")
    shop.push("clicks", clicks([1.0]), to=PushMode.ONLINE)
    first.stop()
    poll_until(lambda: owners_of(context) == [second.name] * 8, what="the other has all")
    shop.push("clicks", clicks([2.0]), to=PushMode.ONLINE)
    wait_until_done(context)
    assert sums(server, by_user(), "sum_worth_1d", [1]) == [3.0]


def test_a_worker_may_be_kept_to_some_partitions(context: StreamContext, start_worker: StartWorker) -> None:
    some = start_worker([1, 3])
    poll_until(lambda: owners_of(context)[1:4] == [some.name, None, some.name], what="it has its two")
    rest = start_worker()
    poll_until(lambda: None not in owners_of(context), what="all have an owner")
    assert {owners_of(context)[p] for p in (0, 2, 4, 5, 6, 7)} == {rest.name}


def run_of(context: StreamContext, partition: int, worker: str) -> Partitions:
    context.session.client.delete(owner_key(PROJECT, str(partition)))
    owner = context.session.hold(own(PROJECT, str(partition), worker, 60_000))
    assert owner is not None
    partitions = Partitions(context)
    partitions.begin(partition, owner)
    return partitions


def partition_with_events(context: StreamContext) -> int:
    states = context.session.hold(read_states(context.log, range(8)))
    return next(p for p, state in enumerate(states) if state.appended)


def entries_of(context: StreamContext, partition: int) -> list[tuple[int, bytes]]:
    return context.session.hold(read_entries(context.log, {partition: 0}, 100))[partition]


def test_an_owner_with_an_old_token_changes_nothing_and_lands_nothing_twice(
    repo: Path, context: StreamContext, shop: FeatureStore, server: RedisServer
) -> None:
    shop.push("clicks", clicks([1.0, 2.0]), to=PushMode.ONLINE_AND_OFFLINE)
    partition = partition_with_events(context)
    zombie = run_of(context, partition, "zombie").runs[partition]
    entries = entries_of(context, partition)
    successor = run_of(context, partition, "successor")
    while successor.step():
        pass
    successor.end(partition, is_lost=False)
    with pytest.raises(OwnershipLost):
        context.session.hold(zombie.take(entries))
    zombie._landing.flush()
    assert landed(repo) == [1.0, 2.0]
    assert sums(server, by_user(), "sum_worth_1d", [1]) == [3.0]


def test_a_zombie_that_lands_first_leaves_its_successor_the_rest(
    repo: Path, context: StreamContext, shop: FeatureStore
) -> None:
    shop.push("clicks", clicks([1.0, 2.0]), to=PushMode.ONLINE_AND_OFFLINE)
    partition = partition_with_events(context)
    zombie = run_of(context, partition, "zombie").runs[partition]
    entries = entries_of(context, partition)
    successor = run_of(context, partition, "successor")
    shop.push("clicks", clicks([4.0]), to=PushMode.ONLINE_AND_OFFLINE)
    context.session.hold(successor.runs[partition].take(entries_of(context, partition)))
    with pytest.raises(OwnershipLost):
        context.session.hold(zombie.take(entries))
    zombie._landing.flush()
    successor._land()
    assert landed(repo) == [1.0, 2.0, 4.0]


def test_entries_that_are_delivered_twice_count_and_land_once(
    repo: Path, context: StreamContext, shop: FeatureStore, server: RedisServer
) -> None:
    shop.push("clicks", clicks([1.0, 2.0]), to=PushMode.ONLINE_AND_OFFLINE)
    partition = partition_with_events(context)
    entries = entries_of(context, partition)
    for worker in ("first", "second"):
        partitions = run_of(context, partition, worker)
        context.session.hold(partitions.runs[partition].take(entries))
        partitions._landing.flush()
    assert landed(repo) == [1.0, 2.0]
    assert sums(server, by_user(), "sum_worth_1d", [1]) == [3.0]


@pytest.mark.parametrize("trips", [*range(20, 100, 16), *(pytest.param(n, marks=pytest.mark.long) for n in range(130))])
def test_a_worker_killed_at_any_round_trip_has_counted_and_landed_each_event_once(
    repo: Path,
    context: StreamContext,
    shop: FeatureStore,
    server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    trips: int,
) -> None:
    for user in range(4):
        shop.push("clicks", clicks([1.0, 2.0], user, f"page {user % 2}"), to=PushMode.ONLINE_AND_OFFLINE)
        shop.push("clicks", clicks([4.0], user, f"page {user % 2}"), to=PushMode.ONLINE)

    class Killed(BaseException):
        pass

    left, whole = trips, RedisSession._send

    def send(self: RedisSession, batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return whole(self, batch)

    def work() -> None:
        partitions = Partitions(context)
        for number in range(8):
            server.client().delete(owner_key(PROJECT, str(number)))
            owner = context.session.hold(own(PROJECT, str(number), "w", 60_000))
            assert owner is not None
            partitions.begin(number, owner)
        while partitions.step():
            pass
        for number in range(8):
            partitions.end(number, is_lost=False)

    with monkeypatch.context() as patched:
        patched.setattr(RedisSession, "_send", send)
        with contextlib.suppress(Killed):
            work()
    work()
    assert sums(server, by_user(), "sum_worth_1d", range(4)) == [7.0] * 4
    assert sums(server, by_page(), "sum_worth", ["page 0", "page 1"]) == [14.0, 14.0]
    assert sorted(landed(repo)) == [1.0] * 4 + [2.0] * 4
    states = context.session.hold(read_states(context.log, range(8)))
    assert sum(state.applied_rows for state in states) == sum(state.appended for state in states)
    assert sum(state.landed_rows for state in states) == 8


def test_what_is_no_entry_stops_nothing_and_is_told(
    repo: Path, context: StreamContext, shop: FeatureStore, server: RedisServer, start_worker: StartWorker
) -> None:
    unknown = Events("clicks", ("user_id:INT64",), True, True, b"no such!", [[1]])
    gone = Events("no such source", ("user_id:INT64",), True, True, b"no such!", [[1]])
    poison = [b"\xc1", b"", encode_events(unknown), encode_events(gone)]
    everywhere = {p: PartitionAppend([LoggedEntry(content, 1) for content in poison]) for p in range(8)}
    context.session.hold(append(context.log, everywhere, context.clock.now_us()))
    shop.push("clicks", clicks([1.0]), to=PushMode.ONLINE_AND_OFFLINE)
    start_worker()
    wait_until_done(context)
    assert sums(server, by_user(), "sum_worth_1d", [1]) == [1.0]
    assert landed(repo) == [1.0]
    reasons = [kept.letter.reason for kept in all_letters(context)]
    assert len(reasons) == 32
    assert {reason[:10] for reason in reasons} == {"log entry ", "logged row", "push sourc"}


def test_an_event_that_its_view_cannot_take_hides_no_other(
    context: StreamContext, shop: FeatureStore, server: RedisServer, start_worker: StartWorker
) -> None:
    shop.push("clicks", clicks([1.0], user=1), to=PushMode.ONLINE)
    start_worker()
    wait_until_done(context)
    # Tiles that something has damaged.
    (tiles,) = server.client().keys("*by_user#*")
    server.client().hset(tiles, mapping={name: b"\xc1" for name in server.client().hgetall(tiles) if name})
    for user in range(10):
        shop.push("clicks", clicks([2.0], user), to=PushMode.ONLINE)
    wait_until_done(context)
    others = [0, *range(2, 10)]
    assert sums(server, by_user(), "sum_worth_1d", others) == [2.0] * 9
    assert sums(server, by_page(), "sum_worth", ["home"]) == [21.0]
    (kept,) = all_letters(context)
    assert "by_user" in kept.letter.reason
    assert '"user_id":1' in kept.letter.row


def test_rows_wait_in_the_log_while_they_cannot_land_and_land_once_afterwards(
    repo: Path, context: StreamContext, shop: FeatureStore, server: RedisServer, start_worker: StartWorker
) -> None:
    source = repo / "data" / "clicks.parquet"
    shop.push("clicks", clicks([1.0]), to=PushMode.ONLINE_AND_OFFLINE)
    kept = source.read_bytes()
    source.unlink()
    start_worker()
    poll_until(lambda: sums(server, by_user(), "sum_worth_1d", [1]) == [1.0], what="it counts online")
    assert not (repo / LANDED).exists()
    source.write_bytes(kept)
    wait_until_done(context)
    assert landed(repo) == [1.0]


def test_a_row_that_fits_its_source_no_longer_is_told_and_the_others_land(
    repo: Path, context: StreamContext, shop: FeatureStore, start_worker: StartWorker
) -> None:
    for worth in (1.0, 2.5, 3.0):
        shop.push("clicks", clicks([worth]), to=PushMode.ONLINE_AND_OFFLINE)
    whole = COLUMNS.set(COLUMNS.get_field_index("worth"), pa.field("worth", pa.int64())).append(
        pa.field("colour", pa.string())
    )
    pq.write_table(whole.empty_table(), repo / "data" / "clicks.parquet")
    start_worker()
    wait_until_done(context)
    assert landed(repo) == [1, 3]
    (kept,) = all_letters(context)
    assert (kept.letter.to, "2.5" in kept.letter.row) == ("offline", True)


def test_landed_rows_keep_their_ids_through_compaction_and_are_no_columns_of_the_source(
    repo: Path, context: StreamContext, shop: FeatureStore, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "LAND_SECONDS", 0.0)
    start_worker()
    for worth in (1.0, 2.0, 3.0):
        shop.push("clicks", clicks([worth]), to=PushMode.ONLINE_AND_OFFLINE)
        wait_until_done(context)
    ids, marks = landed_event_ids(repo), landed_ids(repo / LANDED)
    assert ids == sorted(ids)
    assert list(marks.values()) == [ids[-1]]
    assert len(compact(repo / LANDED).merges) == 1
    assert (landed_event_ids(repo), landed_ids(repo / LANDED)) == (ids, marks)
    assert open_source(shop.config, clicks_source()).schema.names == COLUMNS.names


def test_a_run_begins_where_the_last_one_recorded_and_reads_its_log_to_the_end(
    repo: Path, context: StreamContext, shop: FeatureStore
) -> None:
    for worth in range(5):
        shop.push("clicks", clicks([float(worth)]), to=PushMode.ONLINE_AND_OFFLINE)
    partition = partition_with_events(context)
    entries = entries_of(context, partition)
    first = run_of(context, partition, "first").runs[partition]
    context.session.hold(first.take(entries[:2]))
    # Killed here: applied but not landed.
    second = run_of(context, partition, "second")
    assert second.runs[partition].state.applied == entries[1][0]
    assert second.runs[partition].state.landed == 0
    while second.step():
        pass
    second.end(partition, is_lost=False)
    assert landed(repo) == [0.0, 1.0, 2.0, 3.0, 4.0]
    (state,) = context.session.hold(read_states(context.log, [partition]))
    assert (state.applied_rows, state.landed_rows, state.bytes) == (5, 5, state.done_bytes)
    assert entries_of(context, partition) == []


def test_a_source_that_feeds_a_plain_view_too_writes_it_at_once_and_lands_once(
    repo: Path, server: RedisServer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())
    server.client().flushall()
    store = make_store(repo, server.url, by_user(), last_click())
    store.push("clicks", clicks([1.0, 2.0]), to=PushMode.ONLINE_AND_OFFLINE)
    answer = store.get_online_features(["last_click:worth"], {"user_id": [1]}).to_dict()
    assert answer["worth"] == [2.0]
    context = StreamContext(repo, store.config)
    partitions = Partitions(context)
    for number in range(8):
        owner = context.session.hold(own(PROJECT, str(number), "w", 60_000))
        assert owner is not None
        partitions.begin(number, owner)
    while partitions.step():
        pass
    for number in range(8):
        partitions.end(number, is_lost=False)
    assert landed(repo) == [1.0, 2.0]
    context.close()
