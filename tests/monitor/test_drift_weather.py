"""Drift in a real year of hourly weather: the seasons are found, and halves of the same rows are alike."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from demo.instants import PACKAGE, read_package, weather_readings
from store.kernel.drift import compare
from store.kernel.drift_measures import Verdict
from store.kernel.drift_verdicts import Rules, judge
from store.kernel.profiles import ColumnProfile
from store.monitor.settings import MonitoringSettings
from tests.monitor.samples import numeric, texts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed (the extra `demo`)"
)


@pytest.fixture(scope="module")
def weather() -> pd.DataFrame:
    return weather_readings(read_package().weather)


def columns(rows: pd.DataFrame) -> Iterator[ColumnProfile]:
    for name, column in rows.items():
        if name not in {"observed_at", "published_at"}:
            known = column.dropna()
            make = numeric if pd.api.types.is_numeric_dtype(column) and column.dtype != "boolean" else texts
            yield make(str(name), [*known.astype(float if make is numeric else str)], nulls=len(column) - len(known))


def alarms(reference: pd.DataFrame, current: pd.DataFrame, rows_alike: float = 1) -> set[str]:
    settings = MonitoringSettings()
    pairs = list(zip(columns(reference), columns(current), strict=True))
    compared = [(compare(*pair, rows_alike), settings.thresholds_of("")) for pair in pairs]
    judged = judge(compared, Rules(settings.false_alarm_rate, settings.rows_min)).features
    return {
        before.name
        for (before, _), found in zip(pairs, judged, strict=True)
        if any(each.verdict is Verdict.ALARM for each in found)
    }


def test_winter_differs_from_summer(weather: pd.DataFrame) -> None:
    months = weather["observed_at"].dt.month
    found = alarms(weather[months.isin([1, 2])], weather[months.isin([7, 8])])
    assert {"temp", "dewp", "is_freezing"} <= found
    # The rows come from the same three airports, hour by hour.
    assert "origin" not in found


def test_halves_of_the_same_rows_do_not_differ(weather: pd.DataFrame) -> None:
    draw = np.random.default_rng(4)
    for _ in range(5):
        is_first = draw.random(len(weather)) < 0.5
        assert alarms(weather[is_first], weather[~is_first]) == set()


def test_a_cooler_day_of_a_month_alarms_unless_its_hours_are_said_to_be_alike(weather: pd.DataFrame) -> None:
    # Hours that follow each other say nearly the same, at three airports in sight of each other: 72 rows of one day are
    # worth a handful, and every other day would alarm.
    dates = weather["observed_at"].dt.date.astype(str)
    month, day = weather[(dates >= "2013-05-01") & (dates < "2013-05-25")], weather[dates == "2013-05-25"]
    assert "temp" in alarms(month, day)
    assert alarms(month, day, rows_alike=24) == set()
    # Seasons are still told apart.
    months = weather["observed_at"].dt.month
    assert "temp" in alarms(weather[months.isin([1, 2])], weather[months.isin([7, 8])], rows_alike=24)
