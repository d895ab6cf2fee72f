"""The replayed day: all that became known in it is pushed, once and in order, as the sources' columns want it."""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from demo.day import Day, Feed, columns_of, feeds_of_the_day, flights_of_the_day
from demo.events import REPLAY_END, REPLAY_START
from demo.serving import DayRecord
from demo.training import PREDICTED_BEFORE
from store.pushed import checked_table

FILES = {
    "departures_push": "departures",
    "arrivals_push": "arrivals",
    "weather_push": "origin_weather",
    "board_push": "origin_board",
}


@pytest.fixture(scope="module")
def feeds(flights_repo: Path, flights: pd.DataFrame) -> list[Feed]:
    return feeds_of_the_day(flights_repo / "data" / "flights", flights)


def test_every_event_of_the_day_is_pushed_once_when_it_became_known(feeds: list[Feed], flights: pd.DataFrame) -> None:
    departures, arrivals, weather, boards = (feed.rows for feed in feeds)
    within = {
        name: ((flights[name] >= REPLAY_START) & (flights[name] < REPLAY_END)).sum()
        for name in ("departed_at", "arrived_at")
    }
    assert (departures["is_cancelled"].eq(False).sum(), len(arrivals)) == (within["departed_at"], within["arrived_at"])
    assert len(weather) == len(boards) == 3 * 24
    for feed in feeds:
        by_instant = feed.by_instant()
        assert sum(map(len, by_instant.values())) == len(feed.rows)
        assert all((rows[feed.known_at] == instant).all() for instant, rows in by_instant.items())
        assert min(by_instant) >= REPLAY_START
        assert max(by_instant) < REPLAY_END


def test_what_lands_is_not_in_the_files_and_what_does_not_is(feeds: list[Feed], flights_repo: Path) -> None:
    for feed in feeds:
        stored = pd.read_parquet(flights_repo / "data" / "flights" / f"{FILES[feed.push_source]}.parquet")
        is_there = feed.rows[feed.known_at].isin(stored[feed.known_at])
        assert is_there.all() if feed.to == "online" else not is_there.any()


def test_pushed_rows_fit_the_columns_of_their_sources(feeds: list[Feed], flights_repo: Path) -> None:
    for feed in feeds:
        schema = pq.read_schema(flights_repo / "data" / "flights" / f"{FILES[feed.push_source]}.parquet")
        columns = json.loads(json.dumps(columns_of(feed.rows)))
        table = checked_table(feed.push_source, columns, schema, required=schema.names, not_null=[feed.known_at])
        assert table.num_rows == len(feed.rows)


def test_flights_are_asked_about_an_hour_before_departure(feeds: list[Feed], flights: pd.DataFrame) -> None:
    due = flights_of_the_day(flights)["scheduled_departure_at"] - PREDICTED_BEFORE
    assert due.is_monotonic_increasing
    assert due.min() >= REPLAY_START
    assert due.max() < REPLAY_END
    instants = {instant for feed in feeds for instant in feed.by_instant()} | set(due)
    assert Day(feeds, flights_of_the_day(flights)).length == len(instants)


def test_record_of_a_day_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    record = DayRecord(1, 2, 3, 4, 5, 1.5, 0.7, [["UA 1"]], [[1, 1], [2, 0]])
    record.keep(tmp_path / "day.json")
    assert DayRecord.kept(tmp_path / "day.json") == record
    for broken in ("{", "[]", "{}", '{"events": 1}'):
        (tmp_path / "day.json").write_text(broken)
        assert DayRecord.kept(tmp_path / "day.json") is None
    assert DayRecord.kept(tmp_path / "none.json") is None
