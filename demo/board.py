"""The departure board of each origin, read on every full hour: what no window over events can say.

A flight is overdue from its scheduled departure until it leaves: that is no event, but the lack of one.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from demo.instants import NEW_YORK

BOARD_PUBLISHED_AFTER = pd.Timedelta(minutes=5)
OVERDUE_HOURS = 3
"""How far back a scheduled departure may lie to count as overdue; most later ones are cancelled and forgotten."""

_Ints = npt.NDArray[np.int64]


def origin_board(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns for each origin and full hour what its departure board shows.

    Shapes: origin, closed_at, published_at, overdue_departures (of the last `OVERDUE_HOURS` of schedule, those not
        gone by closed_at: cancelled flights are among them, as anyone in the departure hall sees them), on every hour
        of 2013.
    """
    hours = pd.date_range("2013-01-01", "2013-12-31 23:00", freq="h", tz=NEW_YORK).tz_convert("UTC")
    window_ns = pd.Timedelta(hours=OVERDUE_HOURS).value
    parts = [
        pd.DataFrame(
            {
                "origin": origin,
                "closed_at": hours,
                "published_at": hours + BOARD_PUBLISHED_AFTER,
                "overdue_departures": _overdue(group, hours.asi8, window_ns).astype("int32"),
            }
        )
        for origin, group in flights.groupby("origin")
    ]
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
