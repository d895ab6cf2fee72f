"""The features, by the entity that they describe. All of them are known one hour before scheduled departure."""

from datetime import timedelta
from typing import Any

from entities import carrier, dest, origin, plane
from feast import FeatureView, StreamFeatureView
from feast.aggregation import Aggregation
from feast.field import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float64, Int32, Int64, String
from sources import (
    arrivals_push,
    board_push,
    carrier_register,
    departures_push,
    flight_plan,
    plane_register,
    weather_push,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

origin_weather = FeatureView(
    name="origin_weather",
    entities=[origin],
    ttl=timedelta(hours=4),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="temperature_f", dtype=Float64, description="Temperature, degrees Fahrenheit"),
        Field(name="dew_point_f", dtype=Float64, description="Dew point, degrees Fahrenheit"),
        Field(name="humidity_percent", dtype=Float64, description="Relative humidity"),
        Field(name="wind_direction_degrees", dtype=Int64, description="Where the wind comes from; null if it varies"),
        Field(name="wind_speed_mph", dtype=Float64, description="Wind speed"),
        Field(name="wind_gust_mph", dtype=Float64, description="Gusts; null if there were none"),
        Field(name="precipitation_inches", dtype=Float64, description="Precipitation in the hour"),
        Field(name="pressure_mb", dtype=Float64, description="Pressure at sea level, millibars"),
        Field(name="visibility_miles", dtype=Float64, description="Visibility, 10 at most"),
        Field(name="is_freezing", dtype=Bool, description="32 degrees Fahrenheit or less"),
    ],
    source=weather_push,
    description="The latest weather at the origin",
    owner="weather@flights.example",
    tags={"domain": "weather", "cadence": "hourly"},
)

plane_facts = FeatureView(
    name="plane_facts",
    entities=[plane],
    ttl=timedelta(0),
    schema=[
        Field(name="tailnum", dtype=String),
        Field(name="build_year", dtype=Int32, description="Year of manufacture; null if the register lacks it"),
        Field(name="manufacturer", dtype=String, description="Manufacturer as registered"),
        Field(name="model", dtype=String, description="Model as registered"),
        Field(name="engine", dtype=String, description="Kind of engine"),
        Field(name="engines", dtype=Int32, description="Number of engines"),
        Field(name="seats", dtype=Int32, description="Number of seats"),
    ],
    source=plane_register,
    description="What the register says about the plane; never too old",
    owner="fleet@flights.example",
    tags={"domain": "fleet", "cadence": "static"},
)

carrier_facts = FeatureView(
    name="carrier_facts",
    entities=[carrier],
    ttl=timedelta(0),
    schema=[
        Field(name="carrier", dtype=String),
        Field(name="airline", dtype=String, description="Name of the airline"),
    ],
    source=carrier_register,
    description="Who the airline is; never too old",
    owner="airlines@flights.example",
    tags={"domain": "airlines", "cadence": "static"},
)

origin_hourly = FeatureView(
    name="origin_hourly",
    entities=[origin],
    ttl=timedelta(hours=3),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="overdue_departures", dtype=Int32, description="Flights of the last three hours that are not gone"),
    ],
    source=board_push,
    description="What the departure board of the origin shows",
    owner="airports@flights.example",
    tags={"domain": "airports", "cadence": "hourly"},
)

origin_departures = StreamFeatureView(
    name="origin_departures",
    entities=[origin],
    schema=[
        Field(name="origin", dtype=String),
        Field(name="origin_departures_1h", dtype=Int64, description="Departures in an hour"),
        Field(name="origin_departures_3h", dtype=Int64, description="Departures in three hours"),
        Field(name="origin_departures_1d", dtype=Int64, description="Departures in a day"),
        Field(name="origin_departure_delay_1h", dtype=Float64, description="Their mean delay in an hour, minutes"),
        Field(name="origin_departure_delay_3h", dtype=Float64, description="Their mean delay in three hours, minutes"),
        Field(name="origin_departure_delay_1d", dtype=Float64, description="Their mean delay in a day, minutes"),
        Field(name="origin_departure_delay_p90_3h", dtype=Float64, description="90 % of them had at most this delay"),
        Field(name="origin_cancelled_share_1d", dtype=Float64, description="Share cancelled of a day's flights"),
    ],
    source=departures_push,
    timestamp_field="happened_at",
    aggregations=[
        *(
            Aggregation("departure_delay_minutes", "count", length, name=f"origin_departures_{name}")
            for name, length in (("1h", HOUR), ("3h", 3 * HOUR), ("1d", DAY))
        ),
        *(
            Aggregation("departure_delay_minutes", "mean", length, name=f"origin_departure_delay_{name}")
            for name, length in (("1h", HOUR), ("3h", 3 * HOUR), ("1d", DAY))
        ),
        Aggregation("departure_delay_minutes", "approx_percentile_90", 3 * HOUR, name="origin_departure_delay_p90_3h"),
        Aggregation("is_cancelled", "mean", DAY, name="origin_cancelled_share_1d"),
    ],
    description="How departures from the origin go",
    owner="airports@flights.example",
    tags={"domain": "airports", "cadence": "live"},
)

carrier_departures = StreamFeatureView(
    name="carrier_departures",
    entities=[carrier],
    schema=[
        Field(name="carrier", dtype=String),
        Field(name="carrier_departure_delay_3h", dtype=Float64, description="Mean delay in three hours, minutes"),
        Field(name="carrier_departure_delay_1d", dtype=Float64, description="Mean delay in a day, minutes"),
        Field(name="carrier_cancelled_share_1d", dtype=Float64, description="Share cancelled of a day's flights"),
        Field(name="carrier_destinations_7d", dtype=Int64, description="Different destinations in seven days"),
    ],
    source=departures_push,
    timestamp_field="happened_at",
    aggregations=[
        Aggregation("departure_delay_minutes", "mean", 3 * HOUR, name="carrier_departure_delay_3h"),
        Aggregation("departure_delay_minutes", "mean", DAY, name="carrier_departure_delay_1d"),
        Aggregation("is_cancelled", "mean", DAY, name="carrier_cancelled_share_1d"),
        Aggregation("dest", "count_distinct", 7 * DAY, name="carrier_destinations_7d"),
    ],
    description="How the airline's departures from New York go",
    owner="airlines@flights.example",
    tags={"domain": "airlines", "cadence": "live"},
)

plane_arrivals = StreamFeatureView(
    name="plane_arrivals",
    entities=[plane],
    schema=[
        Field(name="tailnum", dtype=String),
        Field(name="plane_last_delays", dtype=Array(Int64), description="Delays of its last five, newest first"),
        Field(name="plane_arrivals_7d", dtype=Int64, description="Arrivals in seven days"),
        Field(name="plane_arrival_delay_7d", dtype=Float64, description="Their mean delay, minutes"),
        Field(name="plane_late_share_30d", dtype=Float64, description="Share of late arrivals in 30 days"),
    ],
    source=arrivals_push,
    timestamp_field="happened_at",
    aggregations=[
        Aggregation("arrival_delay_minutes", "last_5", 30 * DAY, name="plane_last_delays"),
        Aggregation("arrival_delay_minutes", "count", 7 * DAY, name="plane_arrivals_7d"),
        Aggregation("arrival_delay_minutes", "mean", 7 * DAY, name="plane_arrival_delay_7d"),
        Aggregation("is_late", "mean", 30 * DAY, name="plane_late_share_30d"),
    ],
    description="How the plane fared lately on flights out of New York",
    owner="fleet@flights.example",
    tags={"domain": "fleet", "cadence": "live"},
)

route_arrivals = StreamFeatureView(
    name="route_arrivals",
    entities=[origin, dest],
    schema=[
        Field(name="origin", dtype=String),
        Field(name="dest", dtype=String),
        Field(name="route_arrivals_30d", dtype=Int64, description="Arrivals in 30 days"),
        Field(name="route_arrival_delay_30d", dtype=Float64, description="Their mean delay, minutes"),
        Field(name="route_late_share_30d", dtype=Float64, description="Share of late arrivals in 30 days"),
        Field(name="route_elapsed_minutes_30d", dtype=Float64, description="Mean minutes gate to gate in 30 days"),
        Field(name="route_arrival_delay_1d", dtype=Float64, description="Mean delay in a day, minutes"),
        Field(name="route_last_delays", dtype=Array(Int64), description="Last ten delays, newest first"),
    ],
    source=arrivals_push,
    timestamp_field="happened_at",
    aggregations=[
        Aggregation("arrival_delay_minutes", "count", 30 * DAY, name="route_arrivals_30d"),
        Aggregation("arrival_delay_minutes", "mean", 30 * DAY, name="route_arrival_delay_30d"),
        Aggregation("is_late", "mean", 30 * DAY, name="route_late_share_30d"),
        Aggregation("elapsed_minutes", "mean", 30 * DAY, name="route_elapsed_minutes_30d"),
        Aggregation("arrival_delay_minutes", "mean", DAY, name="route_arrival_delay_1d"),
        Aggregation("arrival_delay_minutes", "last_10", 30 * DAY, name="route_last_delays"),
    ],
    description="How flights on the route fared lately",
    owner="routes@flights.example",
    tags={"domain": "routes", "cadence": "live"},
)


@on_demand_feature_view(
    sources=[flight_plan, route_arrivals, plane_arrivals, origin_hourly],
    # Feast refuses a description on these fields: it compares them with inferred ones, which have none.
    schema=[
        Field(name="block_slack_minutes", dtype=Float64),
        Field(name="worst_recent_delay_minutes", dtype=Int64),
        Field(name="plane_last_delay_minutes", dtype=Int64),
        Field(name="plane_last_delays_mean", dtype=Float64),
        Field(name="is_congested_evening", dtype=Bool),
    ],
    mode="python",
    description=(
        "The flight plan against the record: scheduled less usual minutes gate to gate, the worst of the route's last "
        "ten delays, the last of the plane's and the mean of its last five, and whether it leaves between 16:00 and "
        "22:00 with five or more flights overdue"
    ),
    owner="routes@flights.example",
    tags={"domain": "routes", "cadence": "request"},
)
def plan_against_record(inputs: dict[str, Any]) -> dict[str, Any]:
    """Returns the features row by row; an output is null where an input that it needs is null or NaN."""
    # Feast ships this function without its module, so what it needs is imported in it.
    import math

    def known(value: float | None) -> bool:
        return value is not None and not math.isnan(value)

    def listed(values: Any) -> list[int]:
        return [] if values is None else [int(value) for value in values]

    minutes_of_day = inputs["scheduled_minute_of_day"]
    block_minutes = inputs["scheduled_block_minutes"]
    usual_minutes = inputs["route_elapsed_minutes_30d"]
    route_delays = [listed(row) for row in inputs["route_last_delays"]]
    plane_delays = [listed(row) for row in inputs["plane_last_delays"]]
    overdue = inputs["overdue_departures"]
    return {
        "block_slack_minutes": [
            float(block) - float(usual) if known(block) and known(usual) else None
            for block, usual in zip(block_minutes, usual_minutes, strict=True)
        ],
        "worst_recent_delay_minutes": [max(row) if row else None for row in route_delays],
        "plane_last_delay_minutes": [row[0] if row else None for row in plane_delays],
        "plane_last_delays_mean": [sum(row) / len(row) if row else None for row in plane_delays],
        "is_congested_evening": [
            bool(960 <= minute < 1320 and waiting >= 5) if known(minute) and known(waiting) else None
            for minute, waiting in zip(minutes_of_day, overdue, strict=True)
        ],
    }
