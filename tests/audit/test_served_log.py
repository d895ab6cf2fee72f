"""Served vectors reach their files, or are counted; no lookup waits for them."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store.audit.around import StoreSurroundings
from store.audit.log import served_files
from store.audit.queue import ServedQueue
from store.audit.retention import remove_outdated
from store.audit.service_log import ServiceLog
from store.audit.writer import ServedLog
from store.clock import clock_for, to_us
from store.errors import DefinitionError, LarderError, SourceUnreadable
from store.kernel.served_log import NOTE_KEY, FileNote, parse_note
from store.offline.landed_files import ReadGuard
from store.online import RedisOnlineStore
from store.online.conversations import Knowledge
from store.online.lookup import Lookup
from store.online.plan import ServiceName, compile_plan
from store.online.stored_rows import ViewRows
from store.requests import LogTotals, LookupRequest
from store.service import StoreService
from tests.audit.logged_shop import DAY, LOG, LoggedShop, features_of, span
from tests.stores import NOW, user_view


def notes(shop: LoggedShop) -> list[FileNote]:
    """Returns the notes of all files, in the order in which they came."""
    paths = sorted((shop.repo / LOG).glob("*.parquet"))
    return [parse_note(pq.read_metadata(path).metadata[NOTE_KEY], str(path)) for path in paths]


def rows(shop: LoggedShop) -> int:
    return sum(pq.read_metadata(path).num_rows for path in (shop.repo / LOG).glob("*.parquet"))


class Shelf:
    """Looks users up and keeps the answers, to be offered to a log by hand."""

    def __init__(self, shop: LoggedShop) -> None:
        self.knowledge = Knowledge("shop")
        self._shop = shop
        self._online = RedisOnlineStore()
        shop.store.registry.refresh()

    def answer(self, users: list[int]) -> tuple[Lookup, list[ViewRows], int, Knowledge]:
        plan = compile_plan(self._shop.store.registry, "shop", ServiceName("checkout"), full_feature_names=False)
        lookup = Lookup(plan, {"user_id": users, "amount": [1.0] * len(users)})
        session = self._online.session(self._shop.store.config)
        session.hold(lookup.converse(self.knowledge))
        now_us = to_us(NOW)
        found = lookup.answer(self.knowledge, now_us)
        self._online.close_synchronous()
        return lookup, found, now_us, self.knowledge

    def surroundings(self) -> StoreSurroundings:
        store = self._shop.store
        return StoreSurroundings(store.config, self._online, clock_for(self._shop.repo), store.list_all_feature_views)


VALUES = 1 + 5  # of one vector: the key, and five features


@pytest.mark.parametrize(("vectors_max", "dropped"), [(0, 2), (2, 1), (3, 0), (4, 0)])
def test_what_the_queue_has_no_room_for_is_dropped_and_counted(
    shop: LoggedShop, vectors_max: int, dropped: int
) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    queue = ServedQueue(values_max=vectors_max * VALUES)
    for user in (1, 2, 3):
        queue.offer(*shelf.answer([user]))
    counts = queue.counts["checkout"].now()
    assert (counts.served, counts.dropped, counts.sampled_out) == (3, dropped, 0)
    assert len(queue.take(10**9)) == 3 - dropped, "one that finds the queue empty has it for itself"
    queue.offer(*shelf.answer([4]))
    assert queue.counts["checkout"].now().dropped == dropped, "what is taken makes room"


def test_stored_bytes_are_bounded_as_well(shop: LoggedShop) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    answer = shelf.answer([5])
    size = answer[0].stored_bytes
    assert size > 0
    for bytes_max, dropped in ((2 * size - 1, 1), (2 * size, 0)):
        queue = ServedQueue(bytes_max=bytes_max)
        queue.offer(*answer)
        queue.offer(*answer)
        assert queue.counts["checkout"].now().dropped == dropped


def test_lookups_are_sampled_whole(shop: LoggedShop) -> None:
    shop.materialize()
    shop.define(sample_rate=0.25)
    drawn: Iterator[float] = iter([0.24, 0.25, 0.9, 0.0])
    shelf, queue = Shelf(shop), ServedQueue(draw=lambda: next(drawn))
    for _ in range(4):
        queue.offer(*shelf.answer([1, 2]))
    counts = queue.counts["checkout"].now()
    assert (counts.served, counts.sampled_out, len(queue.take(10**9))) == (8, 4, 2)


def test_what_is_left_out_is_told_where_nothing_is_logged(shop: LoggedShop) -> None:
    shop.materialize()
    shop.define(sample_rate=0.0)
    shop.serve([1, 2], [3])
    [note] = notes(shop)
    assert (note.counts.served, note.counts.sampled_out, note.is_last, rows(shop)) == (3, 3, True, 0)
    shop.define()
    shop.serve([1])
    coverage = shop.audit()["services"][0]["coverage"]
    assert (coverage["served"], coverage["sampled_out"], coverage["logged"], coverage["audited"]) == (4, 3, 1, 1)


def test_a_service_that_is_not_logged_costs_nothing(shop: LoggedShop) -> None:
    shop.materialize()

    async def look_up() -> None:
        service = StoreService.open(shop.repo)
        await service.start()
        await service.lookup(LookupRequest(entities={"user_id": [1]}, features=["users:spent"]))
        assert service._served.queue.counts == {}
        assert service._served._thread is None
        await service.close()

    asyncio.run(look_up())
    assert not (shop.repo / LOG).exists()


def test_columns_follow_the_service_as_it_changes(shop: LoggedShop) -> None:
    fields = user_view().schema
    shop.define(user_view(schema=[field for field in fields if field.name != "last"]))
    shop.materialize()
    shop.serve([1], [2])
    shop.define(user_view())
    shop.materialize()
    shop.serve([1, 2, 3])
    first, second = notes(shop)
    assert {f.name for f in second.plan.features} - {f.name for f in first.plan.features} == {"last"}
    told = shop.audit()
    assert told["is_clean"]
    assert (features_of(told)["users:last"]["audited"], features_of(told)["users:spent"]["audited"]) == (3, 5)


def test_a_plan_that_changes_while_a_worker_runs_gets_a_file_of_its_own(shop: LoggedShop) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    log = ServedLog(shelf.surroundings())
    log.queue.offer(*shelf.answer([1]))
    fields = user_view().schema
    shop.define(user_view(schema=[field for field in fields if field.name != "last"]))
    log.queue.offer(*shelf.answer([2, 3]))
    log.turn()
    log.turn(is_last=True)
    files = notes(shop)
    assert [len(note.plan.features) for note in files] == [5, 4]
    assert [note.sequence for note in files] == [1, 2]
    assert [note.is_last for note in files] == [False, True]
    assert sum(note.counts.served for note in files) == rows(shop) == 3


def test_what_comes_while_a_turn_goes_on_waits_for_the_next(shop: LoggedShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    answer, log = shelf.answer([1]), ServedLog(shelf.surroundings())
    original, taken = ServiceLog.take, list[int]()

    def take_and_serve_another(service: ServiceLog, vectors: Any) -> None:
        taken.append(len(vectors))
        if len(taken) < 9:
            log.queue.offer(*answer)
        original(service, vectors)

    monkeypatch.setattr(ServiceLog, "take", take_and_serve_another)
    # A lookup of no rows has no values, and must not wait for ever.
    for each in (answer, answer, shelf.answer([])):
        log.queue.offer(*each)
    log.turn()
    assert taken == [2, 1], "each plan by itself, and neither of the two that came meanwhile"
    log.turn()
    assert taken == [2, 1, 2]
    monkeypatch.setattr(ServiceLog, "take", original)
    log.turn(is_last=True)
    assert log.queue.take(10**9) == []
    assert rows(shop) == 5


def test_a_file_that_cannot_be_written_is_tried_again(shop: LoggedShop) -> None:
    shop.materialize()
    (shop.repo / "data" / "served").write_text("in the way")
    shelf = Shelf(shop)
    log, told = ServedLog(shelf.surroundings()), list[LogTotals]()
    log.tell = told.append
    log.queue.offer(*shelf.answer([1, 2]))
    log.turn(is_last=True)
    assert told == [LogTotals("checkout", 0, 0, 0, 1)]
    (shop.repo / "data" / "served").unlink()
    log.turn(is_last=True)
    assert told[1:] == [LogTotals("checkout", 2, 0, 0, 0)]
    assert (rows(shop), notes(shop)[0].counts.served) == (2, 2)


def test_what_waits_for_a_disk_is_bounded(shop: LoggedShop) -> None:
    shop.materialize()
    (shop.repo / "data" / "served").write_text("in the way")
    shelf = Shelf(shop)
    answer, queue = shelf.answer([1, 2]), ServedQueue()
    for _ in range(3):
        queue.offer(*answer)
    one = ServiceLog("checkout", queue.counts["checkout"], shelf.surroundings(), "w")
    one.follow(answer[0].plan)
    served = queue.take(10**9)
    one.take([("a", served[0])])
    size = one._buffer.byte_count if one._buffer else 0
    for bytes_max, dropped in ((2 * size - 1, 4), (2 * size, 2), (3 * size, 0)):
        bounded = ServiceLog("checkout", queue.counts["checkout"], shelf.surroundings(), "w", bytes_max)
        bounded.follow(answer[0].plan)
        for each in served:
            bounded.take([("a", each)])
        bounded.write_if_due(is_last=True)
        totals = bounded.totals()
        assert totals is not None
        assert (totals.dropped, totals.failures, totals.logged) == (dropped, 1, 0)


def test_a_disk_that_hangs_holds_no_lookup_and_no_shutdown_for_long(
    shop: LoggedShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.materialize()
    monkeypatch.setattr("store.audit.writer.SERVED_CLOSE_SECONDS", 0.05)
    shelf, is_back, began = Shelf(shop), Event(), Event()

    class HangingDisk(StoreSurroundings):
        def append(self, folder: Path, table: pa.Table) -> None:
            began.set()
            assert is_back.wait(60)
            super().append(folder, table)

    around = HangingDisk(shop.store.config, RedisOnlineStore(), clock_for(shop.repo), shop.store.list_all_feature_views)
    log = ServedLog(around, ServedQueue(values_max=10 * VALUES))
    answer = shelf.answer([1])
    log.take(*answer)
    log.close()
    assert began.wait(60)
    for _ in range(20):
        log.take(*answer)
    assert log.queue.counts["checkout"].now().dropped == 10
    thread = log._thread
    assert thread is not None
    assert thread.is_alive()
    is_back.set()
    thread.join(60)
    assert rows(shop) == 1


def test_values_that_no_column_holds_are_dropped_alone(shop: LoggedShop) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    log = ServedLog(shelf.surroundings())
    bad = shelf.answer([1])
    bad[0].entities["amount"] = ["no number"]
    for answer in (shelf.answer([2]), bad, shelf.answer([3])):
        log.queue.offer(*answer)
    log.turn(is_last=True)
    [note] = notes(shop)
    assert (note.counts.served, note.counts.dropped, rows(shop)) == (3, 1, 2)


def test_files_past_their_retention_go(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1])
    folder = shop.repo / LOG
    (folder / "mine.parquet").write_bytes(b"")
    now_us = to_us(NOW)
    day_us = 86_400 * 1_000_000
    assert remove_outdated(folder, now_us + 30 * day_us - 60_000_000, 30) == 0
    guard = ReadGuard(folder)
    assert remove_outdated(folder, now_us + 31 * day_us, 30) == 0, "an audit reads them"
    guard.drop()
    assert remove_outdated(folder, now_us + 31 * day_us, 30) == 1
    assert sorted(path.name for path in folder.glob("*.parquet")) == ["mine.parquet"]
    assert remove_outdated(folder / "nothing", now_us, 30) == 0


def test_a_worker_removes_what_is_past_its_retention(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1])
    [old] = (shop.repo / LOG).glob("*.parquet")
    shop.set_clock(NOW + timedelta(days=31))
    shop.serve([2])
    assert not old.exists()
    assert rows(shop) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no folder"),
        ("data/log/*.parquet", "no folder"),
        ("s3://bucket/log", "another machine"),
        ("data/users.parquet", "is a file"),
        ("data/users.parquet.landed", "users_file"),
        ("data/users.parquet.landed/log", "users_file"),
    ],
)
def test_a_destination_that_cannot_be_used_costs_no_lookup(shop: LoggedShop, path: str, said: str) -> None:
    shop.materialize()
    shop.define(path=path)
    before = (shop.repo / "data" / "users.parquet").read_bytes()
    [answer] = shop.serve([1])
    assert answer["results"][0]["values"] == [1]
    assert (shop.repo / "data" / "users.parquet").read_bytes() == before
    assert not (shop.repo / "data" / "users.parquet.landed").exists()
    with pytest.raises(DefinitionError, match=said):
        shop.audit()


def test_damaged_and_foreign_files_are_told_apart(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1])
    folder = shop.repo / LOG
    table = pa.table({"a": [1]})
    stem = f"{to_us(NOW) * 1_000 + 10**15:020d}-{'0' * 16}"
    pq.write_table(table, folder / "mine.parquet")
    pq.write_table(table, folder / f"{stem}.parquet")
    assert shop.audit()["services"][0]["coverage"]["audited"] == 1
    first = next(path for path in folder.glob("*.parquet") if pq.read_metadata(path).metadata.get(NOTE_KEY))
    later = pq.read_metadata(first).metadata[NOTE_KEY].replace(b'"version":1}', b'"version":99}')
    cases: list[tuple[Callable[[Path], Any], str]] = [
        (lambda path: pq.write_table(table.replace_schema_metadata({NOTE_KEY: b"{}"}), path), "cannot be read"),
        (lambda path: pq.write_table(table.replace_schema_metadata({NOTE_KEY: later}), path), "version 99"),
        (lambda path: path.write_bytes(b"PAR1"), "cannot be read"),
    ]
    for damage, said in cases:
        damage(folder / f"{stem}.parquet")
        with pytest.raises(SourceUnreadable, match=said):
            shop.audit()


def test_only_files_of_the_span_and_the_service_are_read(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2])
    shop.set_clock(NOW + timedelta(hours=2))
    shop.serve([3])
    hour = timedelta(hours=1)
    for start, end, audited in ((None, NOW + hour, 2), (NOW + hour, None, 1), (None, None, 3)):
        coverage = shop.audit(span(start, end))["services"][0]["coverage"]
        assert (coverage["audited"], coverage["served"]) == (audited, audited)
    folder = shop.repo / LOG
    assert served_files(folder, "shop", "other", span()).files == ()
    assert served_files(folder, "webshop", "checkout", span()).files == ()
    with pytest.raises(LarderError, match="nothing can be audited"):
        shop.audit(span(NOW + DAY))


def test_ends_of_the_span_are_inclusive_and_exclusive(shop: LoggedShop) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    log = ServedLog(shelf.surroundings())
    lookup, found, now_us, knowledge = shelf.answer([1])
    for offset in (0, 1, 2):
        log.queue.offer(lookup, found, now_us + offset, knowledge)
    log.turn(is_last=True)
    us = timedelta(microseconds=1)
    assert shop.audit(span(NOW + us, NOW + 2 * us))["services"][0]["coverage"]["audited"] == 1


def test_a_sample_is_spread_and_bounded(shop: LoggedShop) -> None:
    shop.materialize()
    shop.serve([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    for sample, audited in ((1, 1), (3, 3), (10, 10), (11, 10)):
        told = shop.audit(sample=sample)
        assert told["services"][0]["coverage"]["audited"] == audited
        assert {feature["audited"] for feature in features_of(told).values()} == {audited}


def test_files_that_are_missing_and_workers_that_were_killed_are_told(shop: LoggedShop) -> None:
    shop.materialize()
    shelf = Shelf(shop)
    log = ServedLog(shelf.surroundings())
    for user in (1, 2, 3):
        log.queue.offer(*shelf.answer([user]))
        log.turn()
        for service in log._services.values():
            service._due = 0.0
        log.turn()
    first, second, third = sorted((shop.repo / LOG).glob("*.parquet"))
    coverage = shop.audit()["services"][0]["coverage"]
    assert (coverage["workers_without_last_file"], coverage["missing_files"]) == (1, 0)
    second.unlink()
    assert shop.audit()["services"][0]["coverage"]["missing_files"] == 1
    assert first.exists()
    log.turn(is_last=True)
    assert shop.audit()["services"][0]["coverage"]["workers_without_last_file"] == 0
    assert third.exists()
