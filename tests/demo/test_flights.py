"""Preparation: honest instants, nothing lost, kept while it stands, whole or not there."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo import flights as preparation
from demo.flights import MANIFEST, PREPARATION_STEPS, Prepared, prepare
from demo.instants import PackageTables, check_instants, flights_with_instants, outcome_times, weather_readings
from store.errors import SourceError
from tests.oracles.flights import Record

LINE = {
    "year": 2013, "month": 7, "day": 4, "hour": 22, "minute": 30, "dep_time": 2245.0, "dep_delay": 15.0,
    "sched_arr_time": 125, "arr_time": 135.0, "arr_delay": 10.0, "carrier": "UA", "flight": 1, "tailnum": "N1",
    "origin": "EWR", "dest": "LAX", "air_time": 300.0, "distance": 2454,
}  # fmt: skip


def table_of(**changes: object) -> pd.DataFrame:
    return pd.DataFrame([LINE | changes])


def instants_of(package: PackageTables, **changes: object) -> pd.Series:
    return flights_with_instants(table_of(**changes), package.airports).iloc[0]


def test_every_flight_of_the_package_is_there(prepared: Prepared, flights: pd.DataFrame) -> None:
    assert len(flights) == prepared.rows["flights"] == prepared.facts["flights"] == 336_776
    assert flights["is_cancelled"].sum() == 8_255
    assert flights["is_diverted"].sum() == 1_175


def test_arrivals_agree_with_a_second_derivation_from_the_stated_clock_times(
    flights: pd.DataFrame, record: Record
) -> None:
    ordered = sorted(record.flights, key=lambda each: (each.scheduled_at, each.origin, each.carrier, each.number))
    for column, wanted in (
        ("scheduled_departure_at", [each.scheduled_at for each in ordered]),
        ("departed_at", [each.departed_at for each in ordered]),
        ("arrived_at", [each.arrived_at for each in ordered]),
    ):
        derived = pa.array(flights[column]).cast(pa.timestamp("us", "UTC")).to_pylist()
        assert derived == wanted, column


def test_departure_is_local_time_of_new_york_in_summer_and_in_winter(package: PackageTables) -> None:
    summer = instants_of(package, month=7, hour=6, minute=0, dep_delay=-5.0)
    assert summer["scheduled_departure_at"] == datetime(2013, 7, 4, 10, 0, tzinfo=UTC)
    assert summer["departed_at"] == datetime(2013, 7, 4, 9, 55, tzinfo=UTC)
    winter = instants_of(package, month=1, hour=6, minute=0)
    assert winter["scheduled_departure_at"] == datetime(2013, 1, 4, 11, 0, tzinfo=UTC)


def test_arrival_is_local_time_of_the_destination_on_the_next_day(package: PackageTables) -> None:
    flight = instants_of(package)
    # 22:30 in New York is 19:30 in Los Angeles, where it is 01:25 on the next day.
    assert flight["scheduled_arrival_at"] == datetime(2013, 7, 5, 8, 25, tzinfo=UTC)
    assert flight["arrived_at"] == datetime(2013, 7, 5, 8, 35, tzinfo=UTC)


def test_destination_that_the_package_lacks_has_a_zone_of_ours(package: PackageTables) -> None:
    assert "SJU" not in set(package.airports["faa"])
    flight = instants_of(package, dest="SJU", sched_arr_time=225)
    assert flight["scheduled_arrival_at"] == datetime(2013, 7, 5, 6, 25, tzinfo=UTC)


def test_destination_without_a_zone_is_refused_by_name(package: PackageTables) -> None:
    with pytest.raises(SourceError, match="no time zone for destinations \\['XXX'\\]"):
        instants_of(package, dest="XXX")


@pytest.mark.parametrize(("month", "day", "hour"), [(3, 10, 2), (11, 3, 1)])
def test_scheduled_time_in_an_hour_that_changes_is_refused(
    package: PackageTables, month: int, day: int, hour: int
) -> None:
    with pytest.raises(SourceError, match="expected none in the hours that change"):
        instants_of(package, month=month, day=day, hour=hour)


def test_arrival_before_time_in_the_air_is_noticed(package: PackageTables) -> None:
    wrong = flights_with_instants(table_of(air_time=400.0), package.airports)
    with pytest.raises(SourceError, match="1 flights do not spend 0 to 360 minutes on the ground"):
        check_instants(wrong)


def test_flight_that_did_not_arrive_has_no_arrival(package: PackageTables) -> None:
    diverted = instants_of(package, arr_delay=None, air_time=None)
    assert (diverted["is_diverted"], diverted["is_cancelled"]) == (True, False)
    assert pd.isna(diverted["arrived_at"])
    cancelled = flights_with_instants(
        table_of(dep_time=None, dep_delay=None, arr_time=None, arr_delay=None, air_time=None), package.airports
    )
    assert cancelled["is_cancelled"].tolist() == [True]
    assert outcome_times(cancelled).tolist() == [pd.Timestamp("2013-07-05 08:30", tz="UTC")]


def test_weather_hour_that_the_clocks_repeat_has_both_readings_in_order(package: PackageTables) -> None:
    at_jfk = weather_readings(package.weather).query("origin == 'JFK'")
    around = at_jfk[at_jfk["observed_at"].between("2013-11-03T06:00Z", "2013-11-03T08:00Z")]
    assert around["observed_at"].dt.hour.tolist() == [6, 7, 8]
    assert len(at_jfk) == at_jfk["observed_at"].nunique()


def test_weather_whose_local_hour_is_not_its_instant_is_refused(package: PackageTables) -> None:
    shifted = package.weather.head(3).assign(hour=package.weather["hour"].head(3) + 1)
    with pytest.raises(SourceError, match="3 weather readings whose local hour is not their `time_hour`"):
        weather_readings(shifted)


def test_impossible_wind_is_null_and_the_others_stay(package: PackageTables, prepared: Prepared) -> None:
    wind = weather_readings(package.weather)["wind_speed"]
    assert wind.max() < 50
    assert wind.isna().sum() == package.weather["wind_speed"].isna().sum() + 1
    assert prepared.facts["impossible_winds_nulled"] == 1


def test_instants_in_parquet_are_utc_microseconds(flights_repo: Path) -> None:
    for path in (flights_repo / "data" / "flights").glob("*.parquet"):
        for field in pq.read_schema(path):
            assert not str(field.type).startswith("timestamp") or str(field.type) == "timestamp[us, tz=UTC]"


def test_missing_values_in_parquet_are_nulls_not_nan(flights_repo: Path) -> None:
    weather = pq.read_table(flights_repo / "data" / "flights" / "origin_weather.parquet")
    assert weather.column("wind_gust").null_count == 20_778
    assert weather.column("wind_dir").null_count == 460


def test_what_stands_is_kept_and_what_does_not_is_written_again(
    flights_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "flights"
    folder.mkdir()
    for path in (flights_repo / "data" / "flights").iterdir():
        (folder / path.name).hardlink_to(path)
    written = []

    def instead_of_reading() -> PackageTables:
        written.append(True)
        raise SourceError("would prepare again")

    monkeypatch.setattr(preparation, "read_package", instead_of_reading)
    assert prepare(folder).was_kept
    assert not written
    (folder / "arrivals.parquet").unlink()
    (folder / "arrivals.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="would prepare again"):
        prepare(folder)
    assert not (folder / MANIFEST).exists()


@pytest.mark.usefixtures("flights_repo")
def test_every_step_is_reported(steps: list[str]) -> None:
    assert len(steps) == PREPARATION_STEPS
