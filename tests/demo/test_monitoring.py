"""The fault that the demo plants: events like real ones, in wrong units, of keys that no flight has."""

from pathlib import Path

import pandas as pd

from demo.events import KNOWN_AT, LAST_INSTANT, REPLAY_END, REPLAY_START, departures, known_within
from demo.monitoring import FAULTY_CARRIER, FAULTY_EVENTS, FAULTY_ORIGIN, faulty_events


def test_faulty_events_touch_no_real_key_and_lie_in_the_last_hour(flights: pd.DataFrame, flights_repo: Path) -> None:
    assert flights_repo.exists()
    real = known_within(departures(flights), REPLAY_START, REPLAY_END)
    faulty = faulty_events(real)
    assert len(faulty) == FAULTY_EVENTS
    assert list(faulty.columns) == list(real.columns)
    assert faulty.dtypes.to_dict() == real.dtypes.to_dict()
    assert set(faulty["origin"]) == {FAULTY_ORIGIN}
    assert set(faulty["carrier"]) == {FAULTY_CARRIER}
    assert FAULTY_ORIGIN not in set(flights["origin"])
    assert FAULTY_CARRIER not in set(flights["carrier"])
    assert (faulty["happened_at"] == faulty[KNOWN_AT]).all()
    assert faulty["happened_at"].min() >= pd.Timestamp(REPLAY_END) - pd.Timedelta(hours=1)
    assert faulty["happened_at"].max() < pd.Timestamp(LAST_INSTANT)
    delays = real["departure_delay_minutes"].dropna().head(FAULTY_EVENTS).reset_index(drop=True)
    assert (faulty["departure_delay_minutes"] == delays * 60).all()
