"""The features, by the entity that they describe. All of them are known one hour before scheduled departure."""

from datetime import timedelta
from typing import Any

from entities import carrier, dest, origin, plane
from feast import FeatureView
from feast.field import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from sources import (
    carrier_statistics,
    flight_plan,
    origin_board,
    origin_statistics,
    plane_register,
    plane_statistics,
    route_statistics,
    weather_push,
)

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

plane_daily = FeatureView(
    name="plane_daily",
    entities=[plane],
    ttl=timedelta(days=3),
    schema=[
        Field(name="tailnum", dtype=String),
        Field(name="plane_arrivals", dtype=Int32, description="Arrivals in the day that closed"),
        Field(name="plane_mean_arrival_delay_minutes", dtype=Float64, description="Mean delay of those arrivals"),
        Field(name="plane_late_share_28d", dtype=Float32, description="Share of late arrivals in 28 days"),
        Field(name="plane_last_arrival_at", dtype=UnixTimestamp, description="When it last arrived"),
        Field(name="plane_last_arrival_was_late", dtype=Bool, description="Whether that was over 15 minutes late"),
    ],
    source=plane_statistics,
    description="How the plane fared lately on flights out of New York",
    owner="fleet@flights.example",
    tags={"domain": "fleet", "cadence": "daily"},
)

route_daily = FeatureView(
    name="route_daily",
    entities=[origin, dest],
    ttl=timedelta(days=7),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="dest", dtype=String),
        Field(name="route_arrivals", dtype=Int32, description="Arrivals in the day that closed"),
        Field(name="route_cancellations", dtype=Int32, description="Cancellations in the day that closed"),
        Field(name="route_mean_arrival_delay_minutes", dtype=Float64, description="Mean delay; null if none arrived"),
        Field(name="route_late_share_28d", dtype=Float32, description="Share of late arrivals in 28 days"),
        Field(name="route_mean_elapsed_minutes_28d", dtype=Float64, description="Mean minutes gate to gate, 28 days"),
        Field(name="route_last_arrival_delays", dtype=Array(Int64), description="Last ten delays, newest first"),
    ],
    source=route_statistics,
    description="How flights on the route fared lately",
    owner="routes@flights.example",
    tags={"domain": "routes", "cadence": "daily"},
)

carrier_daily = FeatureView(
    name="carrier_daily",
    entities=[carrier],
    ttl=timedelta(days=2),
    schema=[
        Field(name="carrier", dtype=String),
        Field(name="airline", dtype=String, description="Name of the airline"),
        Field(name="carrier_departures", dtype=Int64, description="Departures in the day that closed"),
        Field(name="carrier_mean_departure_delay_minutes", dtype=Float64, description="Mean delay of those departures"),
        Field(name="carrier_late_share_7d", dtype=Float32, description="Share of late arrivals in 7 days"),
        Field(name="carrier_cancelled_share", dtype=Float32, description="Share cancelled in the day that closed"),
    ],
    source=carrier_statistics,
    description="How the airline fared lately out of New York",
    owner="airlines@flights.example",
    tags={"domain": "airlines", "cadence": "daily"},
)

origin_daily = FeatureView(
    name="origin_daily",
    entities=[origin],
    ttl=timedelta(days=2),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="origin_departures", dtype=Int32, description="Departures in the day that closed"),
        Field(name="origin_mean_departure_delay_minutes", dtype=Float64, description="Mean delay of those departures"),
        Field(name="origin_cancelled_share", dtype=Float32, description="Share cancelled in the day that closed"),
        Field(name="origin_was_disrupted", dtype=Bool, description="Whether that share is above 10 %"),
    ],
    source=origin_statistics,
    description="How the origin fared on the day before",
    owner="airports@flights.example",
    tags={"domain": "airports", "cadence": "daily"},
)

origin_hourly = FeatureView(
    name="origin_hourly",
    entities=[origin],
    ttl=timedelta(hours=3),
    schema=[
        Field(name="origin", dtype=String),
        Field(name="departures_last_hour", dtype=Int32, description="Departures in the hour that closed"),
        Field(name="mean_departure_delay_last_hour_minutes", dtype=Float64, description="Their mean; null if none"),
        Field(name="overdue_departures", dtype=Int32, description="Flights of the last three hours that are not gone"),
    ],
    source=origin_board,
    description="What the departure board of the origin shows",
    owner="airports@flights.example",
    tags={"domain": "airports", "cadence": "hourly"},
)


@on_demand_feature_view(
    sources=[flight_plan, route_daily, origin_hourly],
    # Feast refuses a description on these fields: it compares them with inferred ones, which have none.
    schema=[
        Field(name="block_slack_minutes", dtype=Float64),
        Field(name="worst_recent_delay_minutes", dtype=Int64),
        Field(name="is_congested_evening", dtype=Bool),
    ],
    mode="python",
    description=(
        "The flight plan against the record: scheduled less usual minutes gate to gate, the worst of the route's "
        "last ten delays, and whether it leaves between 16:00 and 22:00 with five or more flights overdue"
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

    minutes_of_day = inputs["scheduled_minute_of_day"]
    block_minutes = inputs["scheduled_block_minutes"]
    usual_minutes = inputs["route_mean_elapsed_minutes_28d"]
    delays = inputs["route_last_arrival_delays"]
    overdue = inputs["overdue_departures"]
    return {
        "block_slack_minutes": [
            float(block) - float(usual) if known(block) and known(usual) else None
            for block, usual in zip(block_minutes, usual_minutes, strict=True)
        ],
        "worst_recent_delay_minutes": [
            max(int(delay) for delay in row) if row is not None and len(row) > 0 else None for row in delays
        ],
        "is_congested_evening": [
            bool(960 <= minute < 1320 and waiting >= 5) if known(minute) and known(waiting) else None
            for minute, waiting in zip(minutes_of_day, overdue, strict=True)
        ],
    }
