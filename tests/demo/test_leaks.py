"""No feature knows anything from after its time: by hiding the future, and by counting everything a second time."""

import math
import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from demo.board import origin_board
from demo.events import REPLAY_END, REPLAY_START, arrivals, departures, known_before, known_within
from demo.feast_access import open_feature_store
from demo.instants import CANCELLATION_KNOWN_HOURS
from demo.training import PREDICTED_BEFORE, entity_rows, training_rows
from tests import warm
from tests.oracles.flights import Record

SAMPLED_FLIGHTS = 150

Retrieve = Callable[[pd.DataFrame], pa.Table]


def as_known_at(flights: pd.DataFrame, now: pd.Timestamp) -> pd.DataFrame:
    """The table as it could have stood at an instant: the whole timetable, and no outcome from after it."""
    known = flights.copy()
    unarrived = known["arrived_at"] > now
    undeparted = known["departed_at"] > now
    known.loc[unarrived, ["arrived_at", "arrival_delay_minutes"]] = None
    known.loc[undeparted, ["departed_at", "departure_delay_minutes"]] = None
    known["is_cancelled"] &= known["scheduled_departure_at"] + pd.Timedelta(hours=CANCELLATION_KNOWN_HOURS) <= now
    return known


INSTANTS = ["2013-02-09T14:37Z", "2013-03-10T07:00Z", "2013-07-08T07:00Z", "2013-11-03T08:00:00Z", "2013-12-05T19:06Z"]


@pytest.mark.parametrize("instant", INSTANTS)
def test_what_is_known_at_an_instant_does_not_change_when_the_future_is_hidden(
    flights: pd.DataFrame, instant: str
) -> None:
    now = pd.Timestamp(instant)
    recent = flights[flights["scheduled_departure_at"].between(now - pd.Timedelta(days=9), now + pd.Timedelta(days=2))]
    recent = recent.reset_index(drop=True)
    blind = as_known_at(recent, now)
    for events in (departures, arrivals):
        wanted, found = (known_before(events(each), now + pd.Timedelta("1us")) for each in (recent, blind))
        assert len(wanted) > 0, events
        pd.testing.assert_frame_equal(found, wanted)
        assert (wanted["happened_at"] <= wanted["known_at"]).all()
    wanted, found = (origin_board(each) for each in (recent, blind))
    pd.testing.assert_frame_equal(found[found["closed_at"] <= now], wanted[wanted["closed_at"] <= now])


def test_sources_hold_nothing_that_the_replay_has_yet_to_bring(flights: pd.DataFrame, flights_repo: Path) -> None:
    for name, events in (("departures", departures(flights)), ("arrivals", arrivals(flights))):
        stored = pd.read_parquet(flights_repo / "data" / "flights" / f"{name}.parquet")
        assert stored["known_at"].max() < REPLAY_START
        replayed = known_within(events, REPLAY_START, REPLAY_END)
        assert len(stored) + len(replayed) == (events["known_at"] < REPLAY_END).sum()
        assert replayed["known_at"].is_monotonic_increasing
    late = replayed["happened_at"] < replayed["known_at"]
    assert not late.any(), "arrivals are known as they happen"
    cancelled = known_within(departures(flights), REPLAY_START, REPLAY_END).query("is_cancelled")
    assert len(cancelled) > 10
    assert (cancelled["known_at"] - cancelled["happened_at"] == pd.Timedelta(hours=6)).all()


def test_prediction_is_made_one_hour_before_scheduled_departure(flights: pd.DataFrame) -> None:
    rows = entity_rows(flights)
    assert (flights["scheduled_departure_at"] - rows["event_timestamp"] == pd.Timedelta(hours=1)).all()
    assert pd.Timedelta(hours=1) == PREDICTED_BEFORE


def test_entity_rows_carry_only_the_timetable_and_the_label(flights: pd.DataFrame) -> None:
    hidden = as_known_at(flights, pd.Timestamp("2012-01-01", tz="UTC"))
    pd.testing.assert_frame_equal(
        entity_rows(hidden).drop(columns="is_late"), entity_rows(flights).drop(columns="is_late")
    )


def test_cancelled_and_diverted_flights_are_not_learned_from(flights: pd.DataFrame) -> None:
    rows = entity_rows(flights)
    assert rows["is_late"].isna().sum() == 8_255 + 1_175
    assert training_rows(flights)["is_late"].notna().all()


def test_training_set_equals_a_recount_from_what_was_known(
    flights: pd.DataFrame, retrieve: Retrieve, record: Record
) -> None:
    # What became known after the replay's begin is not in the sources.
    before = flights[flights["scheduled_departure_at"] < REPLAY_START]
    sample = entity_rows(before).sample(SAMPLED_FLIGHTS, random_state=random.randrange(2**31))
    sample = sample.drop(columns="is_late").reset_index(drop=True)
    # Also at instants that are not on the minute grid of flights, right around boundaries and publication.
    shift = pd.to_timedelta([random.choice([0, 0, 0, 1, 299, 300, 301, 899, 900]) for _ in sample.index], unit="s")
    sample["event_timestamp"] += shift
    table = retrieve(sample)
    for row in table.to_pylist():
        wanted = recounted(record, row, row["event_timestamp"])
        differing = {name: (row[name], value) for name, value in wanted.items() if not is_same(name, row[name], value)}
        assert not differing, row


def is_same(name: str, found: object, wanted: object) -> bool:
    """Whether two values are equal: means but for rounding, the percentile within 1 %."""
    if isinstance(found, float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=0.0101 if "_p90_" in name else 1e-9)
    return type(found) is type(wanted) and found == wanted


def recounted(record: Record, row: dict[str, object], now: datetime) -> dict[str, object]:
    """The features of one entity row as the slow second account has them."""
    origin, dest, tailnum, carrier = (row[name] for name in ("origin", "dest", "tailnum", "carrier"))
    assert isinstance(origin, str)
    assert isinstance(dest, str)
    assert isinstance(carrier, str)
    assert tailnum is None or isinstance(tailnum, str)
    wanted = (
        record.origin(origin, now)
        | record.carrier(carrier, now)
        | record.plane(tailnum, now)
        | record.route(origin, dest, now)
        | {"overdue_departures": record.overdue(origin, now)}
    )
    weather = record.weather(origin, now)
    for feature, column in (("temperature_f", "temp"), ("visibility_miles", "visib"), ("wind_gust_mph", "wind_gust")):
        text = None if weather is None else weather[column]
        wanted[feature] = None if text in {None, "NA"} else float(text)
    delays, usual = wanted["route_last_delays"], wanted["route_elapsed_minutes_30d"]
    wanted["worst_recent_delay_minutes"] = max(delays) if isinstance(delays, list) else None
    of_plane = wanted["plane_last_delays"]
    is_known = isinstance(of_plane, list)
    wanted["plane_last_delay_minutes"] = of_plane[0] if is_known else None
    wanted["plane_last_delays_mean"] = sum(of_plane) / len(of_plane) if is_known else None
    block = row["scheduled_block_minutes"]
    assert isinstance(block, int)
    wanted["block_slack_minutes"] = block - usual if isinstance(usual, float) else None
    return wanted


@pytest.fixture(scope="module")
def retrieve(flights_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Retrieve:
    """A function from entity rows to the training set of the served model, by stock Feast on the DuckDB store."""
    # Retrieval only: the online side is Feast's own here, so that no Redis is needed.
    repo = tmp_path_factory.mktemp("leaks") / "feature_repo"
    shutil.copytree(flights_repo, repo)
    path = repo / "feature_store.yaml"
    config = yaml.safe_load(path.read_text())
    config["online_store"] = {"type": "sqlite", "path": "data/online.db"}
    del config["batch_engine"]
    path.write_text(yaml.safe_dump(config))
    warm.run("feast", "--chdir", str(repo), "apply", log=repo / "apply.log")
    store = open_feature_store(repo)

    def training_set(rows: pd.DataFrame) -> pa.Table:
        service = store.get_feature_service("delay_model_v2")
        return store.get_historical_features(rows, service, filter_by_created_timestamp=True).to_arrow()

    return training_set
