"""No feature knows anything from after its time: by hiding the future, and by counting everything a second time."""

import math
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from demo.feast_access import open_feature_store
from demo.instants import CANCELLATION_KNOWN_HOURS, PackageTables
from demo.statistics import statistics_tables
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


@pytest.mark.parametrize(
    "instant",
    ["2013-02-09T14:37Z", "2013-03-10T07:00Z", "2013-07-08T07:00Z", "2013-11-03T08:00:00Z", "2013-12-05T19:06Z"],
)
def test_statistics_up_to_an_instant_do_not_change_when_the_future_is_hidden(
    flights: pd.DataFrame, package: PackageTables, instant: str
) -> None:
    now = pd.Timestamp(instant)
    # 45 days are more than any window looks back; the months before would only take time.
    recent = flights[flights["scheduled_departure_at"].between(now - pd.Timedelta(days=45), now + pd.Timedelta(days=2))]
    recent = recent.reset_index(drop=True)
    seen = statistics_tables(recent, package.airlines)
    blind = statistics_tables(as_known_at(recent, now), package.airlines)
    for name, table in seen.items():
        wanted = table[table["closed_at"] <= now].reset_index(drop=True)
        found = blind[name][blind[name]["closed_at"] <= now].reset_index(drop=True)
        assert len(wanted) > 0, name
        pd.testing.assert_frame_equal(found, wanted, obj=name)


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
    flights: pd.DataFrame, record: Record, retrieve: Retrieve
) -> None:
    sample = entity_rows(flights).sample(SAMPLED_FLIGHTS, random_state=random.randrange(2**31))
    sample = sample.drop(columns="is_late").reset_index(drop=True)
    # Also at instants that are not on the minute grid of flights, right around the closings.
    shift = pd.to_timedelta([random.choice([0, 0, 0, 1, 299, 300, 301, 899, 900]) for _ in sample.index], unit="s")
    sample["event_timestamp"] += shift
    table = retrieve(sample)
    for row in table.to_pylist():
        wanted = recounted(record, row, row["event_timestamp"])
        differing = {name: (row[name], value) for name, value in wanted.items() if not is_same(row[name], value)}
        assert not differing, row


def is_same(found: object, wanted: object) -> bool:
    """Whether two values are equal, floats within the 24 bits of a Float32 feature."""
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-6)
    return type(found) is type(wanted) and found == wanted


def recounted(record: Record, row: dict[str, object], now: datetime) -> dict[str, object]:
    """The features of one entity row as the slow second account has them."""
    origin, dest, tailnum, carrier = (row[name] for name in ("origin", "dest", "tailnum", "carrier"))
    assert isinstance(origin, str)
    assert isinstance(dest, str)
    assert isinstance(carrier, str)
    assert tailnum is None or isinstance(tailnum, str)
    board = record.board(origin, now)
    plane, route = record.plane(tailnum, now), record.route(origin, dest, now)
    weather = record.weather(origin, now)
    close = (now - timedelta(minutes=5)).replace(minute=0, second=0, microsecond=0)
    assert close <= now
    wanted: dict[str, object] = dict(
        zip(
            ("departures_last_hour", "mean_departure_delay_last_hour_minutes", "overdue_departures"),
            board,
            strict=True,
        )
    )
    for found, names in (
        (plane, ("plane_arrivals", "plane_mean_arrival_delay_minutes", "plane_late_share_28d", "plane_last_arrival_at",
                 "plane_last_arrival_was_late")),
        (route, ("route_arrivals", "route_cancellations", "route_mean_arrival_delay_minutes", "route_late_share_28d",
                 "route_mean_elapsed_minutes_28d", "route_last_arrival_delays")),
        (record.carrier(carrier, now), ("carrier_departures", "carrier_mean_departure_delay_minutes",
                                        "carrier_late_share_7d", "carrier_cancelled_share")),
        (record.origin(origin, now), ("origin_departures", "origin_mean_departure_delay_minutes",
                                      "origin_cancelled_share", "origin_was_disrupted")),
    ):  # fmt: skip
        wanted |= dict.fromkeys(names) if found is None else found
    for feature, column in (("temperature_f", "temp"), ("visibility_miles", "visib"), ("wind_gust_mph", "wind_gust")):
        text = None if weather is None else weather[column]
        wanted[feature] = None if text in {None, "NA"} else float(text)
    delays, usual = wanted["route_last_arrival_delays"], wanted["route_mean_elapsed_minutes_28d"]
    wanted["worst_recent_delay_minutes"] = max(delays) if isinstance(delays, list) and delays else None
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
