"""The replay: a day of flights as it became known, pushed to the server while flights of that day are asked about."""

import http.client
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pandas as pd

from demo.events import KNOWN_AT, LAST_INSTANT, REPLAY_END, REPLAY_START, arrivals, departures, known_within
from demo.lookups import Answer, LookupClient
from demo.processes import Refused
from demo.training import PREDICTED_BEFORE, entity_rows
from store.replay import Replay

PUSH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Feed:
    """What one push source gets in a day.

    Attributes:
        rows: of the day, in the order in which they became known.
        known_at: the column that says when.
        to: whether the rows land as well: those that are in the source's file already do not.
    """

    push_source: str
    rows: pd.DataFrame
    known_at: str
    to: str

    def by_instant(self) -> dict[pd.Timestamp, pd.DataFrame]:
        """Returns the rows by the instant at which they became known."""
        return _by_instant(self.rows, self.rows[self.known_at])


def feeds_of_the_day(folder: Path, flights: pd.DataFrame) -> list[Feed]:
    """Returns what is pushed in the day: departures and arrivals, weather and boards.

    Args:
        folder: of the prepared sources.
    """
    feeds = [
        Feed("departures_push", departures(flights), KNOWN_AT, "online_and_offline"),
        Feed("arrivals_push", arrivals(flights), KNOWN_AT, "online_and_offline"),
        Feed("weather_push", _rows(folder / "origin_weather.parquet"), "published_at", "online"),
        Feed("board_push", _rows(folder / "origin_board.parquet"), "published_at", "online"),
    ]
    return [
        Feed(feed.push_source, known_within(feed.rows, REPLAY_START, REPLAY_END, feed.known_at), feed.known_at, feed.to)
        for feed in feeds
    ]


def flights_of_the_day(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the flights for which the prediction falls due in the day, in order of that."""
    due = flights["scheduled_departure_at"] - PREDICTED_BEFORE
    return flights[(due >= REPLAY_START) & (due < REPLAY_END)].reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class ServedDay:
    """What came of a replayed day.

    Attributes:
        rows: entity rows of the flights that were asked about, in the order of the answers.
        answers: one for each instant at which flights were due.
        pushed: rows by push source.
    """

    rows: pd.DataFrame
    answers: Sequence[Answer]
    pushed: Mapping[str, int]

    @property
    def latency_ms_p50(self) -> float:
        """The median time of one lookup."""
        return statistics.median(answer.latency_ms for answer in self.answers)


class Day:
    """The day as the demo replays it."""

    def __init__(self, feeds: Sequence[Feed], flights: pd.DataFrame) -> None:
        """Takes what is pushed and which flights are asked about."""
        self._feeds = [(feed, feed.by_instant()) for feed in feeds]
        self._due = flights["scheduled_departure_at"] - PREDICTED_BEFORE
        self._rows = entity_rows(flights)

    def replay(
        self, replay: Replay, port: int, service: str, settle: Callable[[], None], report: Callable[[str], None]
    ) -> ServedDay:
        """Moves the clock through the day; at each instant pushes what has become known and looks up what is due.

        Args:
            settle: waits until what was pushed counts. A minute of the day takes some milliseconds here, about as
                long as an event is on its way, so lookups would else lag behind as they never did on the day.

        Raises:
            Refused: the server refused; the message carries its reason.
        """
        answers = []
        due = _by_instant(self._rows, self._due)
        with PushClient(port) as pushes, LookupClient(port) as lookups:
            for instant in self._instants(due):
                report(f"{instant:%H:%M}")
                replay.advance(instant.to_pydatetime())
                for feed, by_instant in self._feeds:
                    if instant in by_instant:
                        pushes.push(feed.push_source, by_instant[instant], feed.to)
                if instant in due:
                    settle()
                    answers.append(lookups.look_up(due[instant], service))
        replay.advance(LAST_INSTANT)
        asked = pd.concat([due[instant] for instant in sorted(due)], ignore_index=True)
        pushed = {feed.push_source: len(feed.rows) for feed, _ in self._feeds}
        return ServedDay(asked, answers, pushed)

    def rows_of(self, push_source: str) -> pd.DataFrame:
        """Returns what a push source gets in the day."""
        return next(feed.rows for feed, _ in self._feeds if feed.push_source == push_source)

    @property
    def length(self) -> int:
        """At how many instants something happens."""
        return len(list(self._instants(dict.fromkeys(self._due))))

    def _instants(self, due: Mapping[pd.Timestamp, Any]) -> Iterator[pd.Timestamp]:
        return iter(sorted(set(due).union(*(by_instant for _, by_instant in self._feeds))))


class PushClient:
    """One connection to a Larder server, for pushes."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PUSH_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def push(self, push_source: str, rows: pd.DataFrame, to: str) -> None:
        """Pushes rows, and returns once they are taken.

        Raises:
            Refused: the server refused; the message carries its reason.
        """
        body = json.dumps({"push_source_name": push_source, "df": columns_of(rows), "to": to})
        self._connection.request("POST", "/push", body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        if response.status != http.HTTPStatus.OK:
            raise Refused(f"/push answered {response.status}: {text[:500].decode(errors='replace')}")


def columns_of(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns rows as JSON has them: instants as ISO 8601, what is missing as null."""
    return {str(name): [_plain(value) for value in rows[name].tolist()] for name in rows}


def _by_instant(rows: pd.DataFrame, instants: pd.Series) -> dict[pd.Timestamp, pd.DataFrame]:
    return {pd.Timestamp(str(instant)): rows.loc[places] for instant, places in rows.groupby(instants).groups.items()}


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    return value.isoformat() if isinstance(value, datetime) else value


def _rows(path: Path) -> pd.DataFrame:
    # Integers among which some are missing would otherwise come as floats.
    return pd.read_parquet(path, dtype_backend="numpy_nullable")
