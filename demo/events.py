"""What happens to flights, one row an event, as it became known: the sources of the windowed features.

A departure and its delay are known when the flight departs, an arrival when it arrives. A cancellation belongs to the
time at which the flight should have left, and is known hours later (`CANCELLATION_KNOWN_HOURS`): a late event.

The files hold what was known when the replay begins; what became known after it reaches the store by the replay alone.
"""

from datetime import UTC, datetime, timedelta

import pandas as pd

from demo.instants import LATE_MINUTES, outcome_times

REPLAY_START = datetime(2013, 12, 5, tzinfo=UTC)
"""19:00 in New York on the evening before a Thursday of fog and delays."""
REPLAY_END = REPLAY_START + timedelta(days=1)
LAST_INSTANT = REPLAY_END - timedelta(minutes=1)
"""Where the clock is left: all instants of the flights are on full minutes."""

KNOWN_AT = "known_at"
_ORDER = [KNOWN_AT, "happened_at", "origin", "carrier", "dest"]


def departures(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the departures and cancellations of flights.

    Shapes: one row per flight that left or was cancelled, in the order in which that became known: origin, dest,
        carrier, happened_at (the departure; of a cancelled flight the scheduled one), known_at,
        departure_delay_minutes (null for a cancelled flight), is_cancelled.
    """
    known = flights[flights["departed_at"].notna() | flights["is_cancelled"]]
    happened = known["departed_at"].where(~known["is_cancelled"], known["scheduled_departure_at"])
    return pd.DataFrame(
        {
            "origin": known["origin"],
            "dest": known["dest"],
            "carrier": known["carrier"],
            "happened_at": happened,
            KNOWN_AT: happened.where(~known["is_cancelled"], outcome_times(known)),
            "departure_delay_minutes": known["departure_delay_minutes"].astype("Int64"),
            "is_cancelled": known["is_cancelled"],
        }
    ).sort_values(_ORDER, ignore_index=True)


def arrivals(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the arrivals of flights.

    Shapes: one row per flight that arrived where it should, in the order in which they did: origin, dest, carrier,
        tailnum, happened_at, known_at, arrival_delay_minutes, is_late, elapsed_minutes (departure to arrival).
    """
    arrived = flights[flights["arrived_at"].notna()]
    elapsed = arrived["arrived_at"] - arrived["departed_at"]
    return pd.DataFrame(
        {
            "origin": arrived["origin"],
            "dest": arrived["dest"],
            "carrier": arrived["carrier"],
            "tailnum": arrived["tailnum"],
            "happened_at": arrived["arrived_at"],
            KNOWN_AT: arrived["arrived_at"],
            "arrival_delay_minutes": arrived["arrival_delay_minutes"].astype("Int64"),
            "is_late": arrived["arrival_delay_minutes"] > LATE_MINUTES,
            "elapsed_minutes": (elapsed.dt.total_seconds() // 60).astype("int64"),
        }
    ).sort_values(_ORDER, ignore_index=True)


def known_before(events: pd.DataFrame, instant: datetime) -> pd.DataFrame:
    """Returns the events that were known before an instant."""
    return events[events[KNOWN_AT] < instant].reset_index(drop=True)


def known_within(rows: pd.DataFrame, start: datetime, end: datetime, known_at: str = KNOWN_AT) -> pd.DataFrame:
    """Returns the rows that became known from `start` on, before `end`, in that order."""
    known = rows[(rows[known_at] >= start) & (rows[known_at] < end)]
    return known.sort_values(known_at, kind="stable", ignore_index=True)
