"""Daily and hourly statistics per key, each row made of nothing that was not known at its event time.

A day's statistics close at 03:00 in New York, an hour that exists once on every day of the year and at which hardly
a plane is in the air. A row that closes at e counts what became known in the day before e (or, for the columns that
end in `_7d` and `_28d`, in that many days), whatever day the flight was scheduled for: each outcome counts once,
and never before it was known. A row is published some minutes after it closed; that is its created time.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from demo.instants import LATE_MINUTES, NEW_YORK, outcome_times

CLOSING_HOUR = 3
DAILY_PUBLISHED_AFTER = pd.Timedelta(minutes=15)
HOURLY_PUBLISHED_AFTER = pd.Timedelta(minutes=5)
OVERDUE_HOURS = 3
"""How far back a scheduled departure may lie to count as overdue; most later ones are cancelled and forgotten."""
LAST_DELAYS = 10
"""How many of a route's arrival delays the list feature holds."""
DISRUPTED_SHARE = 0.10
"""An origin's day is disrupted if more than this share of its flights was cancelled; a normal day has 1-2 %."""

_Ints = npt.NDArray[np.int64]


def statistics_tables(flights: pd.DataFrame, airlines: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Returns the statistics of planes, routes, carriers and origins by the name of their source.

    Shapes: one row per key and closing at which something new was known of the key, in order of closing; the last
        closing is the one at the end of 2013.
    """
    closings = daily_closings(flights)
    events = _events(flights, closings)
    return {
        "plane_daily": _plane_daily(events, closings),
        "route_daily": _route_daily(events, closings),
        "carrier_daily": _carrier_daily(events, closings, airlines),
        "origin_daily": _origin_daily(events, closings),
        "origin_hourly": origin_hourly(flights),
    }


def daily_closings(flights: pd.DataFrame) -> pd.DatetimeIndex:
    """Returns the instants at which days close, from the first after the first flight to the end of 2013."""
    first = flights["scheduled_departure_at"].min().tz_convert(NEW_YORK).normalize().tz_localize(None)
    days = pd.date_range(first, "2013-12-31", freq="D") + pd.Timedelta(hours=CLOSING_HOUR)
    # 03:00 is neither skipped nor repeated in New York, so nothing here is a guess.
    return days.tz_localize(NEW_YORK, ambiguous="raise", nonexistent="raise").tz_convert("UTC")


@dataclass(frozen=True, slots=True)
class _Events:
    """What became known of flights, split by kind, each with the number of the closing that counts it (`closing`)."""

    departures: pd.DataFrame
    arrivals: pd.DataFrame
    cancellations: pd.DataFrame


def _events(flights: pd.DataFrame, closings: pd.DatetimeIndex) -> _Events:
    known = flights.assign(outcome_known_at=outcome_times(flights), route=flights["origin"] + ">" + flights["dest"])
    known["is_late"] = known["arrival_delay_minutes"] > LATE_MINUTES

    def of(rows: pd.Series, known_at: str) -> pd.DataFrame:
        frame = known[rows].copy()
        frame["known_at"] = frame[known_at]
        # Something known at the very instant of a closing belongs to it: the closing's day is (before, closing].
        frame["closing"] = np.searchsorted(closings.asi8, frame["known_at"].to_numpy("datetime64[ns]").view("i8"))
        frame = frame[frame["closing"] < len(closings)]
        return frame.sort_values(["known_at", "scheduled_departure_at", "carrier", "flight"], ignore_index=True)

    return _Events(
        departures=of(known["departed_at"].notna(), "departed_at"),
        arrivals=of(known["arrived_at"].notna(), "outcome_known_at"),
        cancellations=of(known["is_cancelled"], "outcome_known_at"),
    )


class _Days:
    """The sums of a column per key and closing, over any number of days back, in exact integers."""

    def __init__(self, keys: pd.Series, closing: pd.Series, values: pd.Series) -> None:
        daily = values.astype("int64").groupby([keys, closing]).sum()
        self._codes = {key: code for code, key in enumerate(sorted(keys.unique()))}
        positions = self._positions(daily.index.get_level_values(0), daily.index.get_level_values(1).to_numpy())
        order = np.argsort(positions)
        self._at = positions[order]
        self._sums = np.concatenate([[0], np.cumsum(daily.to_numpy()[order])])

    def over(self, keys: pd.Series, closing: pd.Series, days: int) -> _Ints:
        """Returns the sum for each key over the `days` closings up to and including the stated one."""
        end = self._positions(keys, closing.to_numpy())
        upto = np.searchsorted(self._at, end, side="right")
        before = np.searchsorted(self._at, end - days, side="right")
        return np.asarray(self._sums[upto] - self._sums[before], dtype=np.int64)

    def _positions(self, keys: "pd.Series | pd.Index", closing: npt.NDArray[np.int64]) -> _Ints:
        # 4,096 is beyond any closing plus the longest window, so the stretches of two keys never meet.
        codes = np.array([self._codes.get(key, -1) for key in keys], dtype=np.int64)
        return codes * 4_096 + closing.astype(np.int64) + 2_048


def _rows(closings: pd.DatetimeIndex, key: list[str], *events: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per key and closing at which one of the events was counted, in order of closing."""
    columns = [*key, "closing"]
    rows = pd.concat([frame[columns] for frame in events]).dropna().drop_duplicates()
    rows = rows.sort_values(["closing", *key], ignore_index=True)
    closed = closings[rows["closing"].to_numpy()]
    return rows.assign(closed_at=closed, published_at=closed + DAILY_PUBLISHED_AFTER)


def _sum(events: pd.DataFrame, key: str, column: str | None = None) -> _Days:
    values = events[column] if column else pd.Series(1, index=events.index)
    return _Days(events[key], events["closing"], values)


def _ratio(sums: _Ints, counts: _Ints, dtype: Literal["Float32", "Float64"] = "Float64") -> pd.Series:
    """Returns sums over counts, null where nothing was counted."""
    nothing = counts == 0
    return pd.Series(sums / np.where(nothing, 1, counts)).mask(nothing).astype(dtype)


def _plane_daily(events: _Events, closings: pd.DatetimeIndex) -> pd.DataFrame:
    arrivals = events.arrivals[events.arrivals["tailnum"].notna()]
    rows = _rows(closings, ["tailnum"], arrivals)
    count = _sum(arrivals, "tailnum").over
    delay = _sum(arrivals, "tailnum", "arrival_delay_minutes").over
    late = _sum(arrivals, "tailnum", "is_late").over
    keys, closing = rows["tailnum"], rows["closing"]
    last = arrivals.groupby(["tailnum", "closing"])[["arrived_at", "is_late"]].last()
    last = last.reindex(pd.MultiIndex.from_frame(rows[["tailnum", "closing"]])).reset_index(drop=True)
    rows["plane_arrivals"] = count(keys, closing, 1).astype("int32")
    rows["plane_mean_arrival_delay_minutes"] = _ratio(delay(keys, closing, 1), count(keys, closing, 1))
    rows["plane_late_share_28d"] = _ratio(late(keys, closing, 28), count(keys, closing, 28), "Float32")
    rows["plane_last_arrival_at"] = last["arrived_at"]
    rows["plane_last_arrival_was_late"] = last["is_late"].astype("boolean")
    return rows.drop(columns="closing")


def _route_daily(events: _Events, closings: pd.DatetimeIndex) -> pd.DataFrame:
    arrivals = events.arrivals.copy()
    arrivals["elapsed_minutes"] = (arrivals["arrived_at"] - arrivals["departed_at"]).dt.total_seconds() // 60
    rows = _rows(closings, ["origin", "dest"], arrivals, events.cancellations)
    keys, closing = rows["origin"] + ">" + rows["dest"], rows["closing"]
    count = _sum(arrivals, "route").over
    delay = _sum(arrivals, "route", "arrival_delay_minutes").over
    late = _sum(arrivals, "route", "is_late").over
    minutes = _sum(arrivals, "route", "elapsed_minutes").over
    cancelled = _sum(events.cancellations, "route").over
    rows["route_arrivals"] = count(keys, closing, 1).astype("int32")
    rows["route_cancellations"] = cancelled(keys, closing, 1).astype("int32")
    rows["route_mean_arrival_delay_minutes"] = _ratio(delay(keys, closing, 1), count(keys, closing, 1))
    rows["route_late_share_28d"] = _ratio(late(keys, closing, 28), count(keys, closing, 28), "Float32")
    rows["route_mean_elapsed_minutes_28d"] = _ratio(minutes(keys, closing, 28), count(keys, closing, 28))
    rows["route_last_arrival_delays"] = _last_delays(arrivals, keys, rows["closed_at"])
    return rows.drop(columns="closing")


def _last_delays(arrivals: pd.DataFrame, keys: pd.Series, closed_at: pd.Series) -> list[list[int]]:
    """Returns for each key the delays of its last arrivals up to the closing, newest first, shorter if fewer."""
    found: dict[int, list[int]] = {}
    rows_of = keys.groupby(keys).groups
    for route, group in arrivals.groupby("route"):
        delays = group["arrival_delay_minutes"].to_numpy("int64")
        rows = rows_of[route]
        # `arrivals` is in order of arrival, so the ones up to a closing are a prefix.
        ends = np.searchsorted(group["known_at"].to_numpy(), closed_at.loc[rows].to_numpy(), side="right")
        for row, end in zip(rows, ends, strict=True):
            found[row] = delays[max(0, end - LAST_DELAYS) : end][::-1].tolist()
    return [found.get(row, []) for row in range(len(keys))]


def _carrier_daily(events: _Events, closings: pd.DatetimeIndex, airlines: pd.DataFrame) -> pd.DataFrame:
    rows = _rows(closings, ["carrier"], events.departures, events.cancellations)
    keys, closing = rows["carrier"], rows["closing"]
    count = _sum(events.departures, "carrier").over
    delay = _sum(events.departures, "carrier", "departure_delay_minutes").over
    cancelled = _sum(events.cancellations, "carrier").over
    arrived = _sum(events.arrivals, "carrier").over
    late = _sum(events.arrivals, "carrier", "is_late").over
    departures, cancellations = count(keys, closing, 1), cancelled(keys, closing, 1)
    rows["airline"] = keys.map(dict(zip(airlines["carrier"], airlines["name"], strict=True)))
    rows["carrier_departures"] = departures
    rows["carrier_mean_departure_delay_minutes"] = _ratio(delay(keys, closing, 1), departures)
    rows["carrier_late_share_7d"] = _ratio(late(keys, closing, 7), arrived(keys, closing, 7), "Float32")
    rows["carrier_cancelled_share"] = _ratio(cancellations, departures + cancellations, "Float32")
    return rows.drop(columns="closing")


def _origin_daily(events: _Events, closings: pd.DatetimeIndex) -> pd.DataFrame:
    rows = _rows(closings, ["origin"], events.departures, events.cancellations)
    keys, closing = rows["origin"], rows["closing"]
    count = _sum(events.departures, "origin").over
    delay = _sum(events.departures, "origin", "departure_delay_minutes").over
    cancelled = _sum(events.cancellations, "origin").over
    departures, cancellations = count(keys, closing, 1), cancelled(keys, closing, 1)
    rows["origin_departures"] = departures.astype("int32")
    rows["origin_mean_departure_delay_minutes"] = _ratio(delay(keys, closing, 1), departures)
    rows["origin_cancelled_share"] = _ratio(cancellations, departures + cancellations, "Float32")
    rows["origin_was_disrupted"] = (rows["origin_cancelled_share"] > DISRUPTED_SHARE).astype("boolean")
    return rows.drop(columns="closing")


def origin_hourly(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns for each origin and full hour what is known there of the hours before.

    Shapes: origin, closed_at, published_at, departures_last_hour and mean_departure_delay_last_hour_minutes (of
        flights that left in (closed_at - 1 h, closed_at]; the mean null if none did), overdue_departures (of the
        last `OVERDUE_HOURS` of schedule, those not gone by closed_at: cancelled flights are among them, as anyone
        in the departure hall sees them), on every hour of 2013.
    """
    hours = pd.date_range("2013-01-01", "2013-12-31 23:00", freq="h", tz=NEW_YORK).tz_convert("UTC")
    at = hours.asi8
    hour_ns, overdue_ns = pd.Timedelta(hours=1).value, pd.Timedelta(hours=OVERDUE_HOURS).value
    parts = []
    for origin, group in flights.groupby("origin"):
        left = group[group["departed_at"].notna()].sort_values("departed_at")
        left_at = left["departed_at"].to_numpy("datetime64[ns]").view("i8")
        delays = np.concatenate([[0], np.cumsum(left["departure_delay_minutes"].to_numpy("int64"))])
        upto, before = np.searchsorted(left_at, at, "right"), np.searchsorted(left_at, at - hour_ns, "right")
        parts.append(
            pd.DataFrame(
                {
                    "origin": origin,
                    "closed_at": hours,
                    "published_at": hours + HOURLY_PUBLISHED_AFTER,
                    "departures_last_hour": (upto - before).astype("int32"),
                    "mean_departure_delay_last_hour_minutes": _ratio(delays[upto] - delays[before], upto - before),
                    "overdue_departures": _overdue(group, at, overdue_ns).astype("int32"),
                }
            )
        )
    return pd.concat(parts).sort_values(["closed_at", "origin"], ignore_index=True)


def _overdue(flights: pd.DataFrame, at: _Ints, window_ns: int) -> _Ints:
    """Returns how many flights scheduled in (at - window, at] had not left by each instant.

    That is those scheduled in the window less those among them that left: both are counted by sorted instants. A
    flight enters at its scheduled departure, and leaves at its departure or when the window passes it, if that is
    sooner; one that left before its time never enters.
    """
    scheduled = flights["scheduled_departure_at"].to_numpy("datetime64[ns]").view("i8")
    never = np.iinfo(np.int64).max
    gone = flights["departed_at"].fillna(pd.Timestamp.max.tz_localize("UTC").floor("s"))
    departed = gone.to_numpy("datetime64[ns]").view("i8")
    leaves = np.minimum(np.where(flights["departed_at"].notna(), departed, never), scheduled + window_ns)
    waits = leaves > scheduled
    entered = np.searchsorted(np.sort(scheduled[waits]), at, "right")
    left = np.searchsorted(np.sort(leaves[waits]), at, "right")
    return np.asarray(entered - left, dtype=np.int64)
