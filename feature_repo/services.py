"""What the models ask for."""

from feast import FeatureService
from views import (
    carrier_daily,
    origin_daily,
    origin_hourly,
    origin_weather,
    plan_against_record,
    plane_daily,
    plane_facts,
    route_daily,
)

delay_model_v1 = FeatureService(
    name="delay_model_v1",
    features=[
        origin_weather[["temperature_f", "wind_speed_mph", "precipitation_inches", "visibility_miles"]],
        plane_facts[["manufacturer", "build_year", "seats"]],
        carrier_daily,
        origin_daily,
    ],
    description="First delay model: weather, plane, and how the day before went",
    owner="models@flights.example",
    tags={"model": "delay", "stage": "retired"},
)

delay_model_v2 = FeatureService(
    name="delay_model_v2",
    features=[
        origin_weather,
        plane_facts,
        plane_daily,
        route_daily,
        carrier_daily,
        origin_daily,
        origin_hourly,
        plan_against_record,
    ],
    description="Second delay model: all of the first, routes, the departure board and the flight plan",
    owner="models@flights.example",
    tags={"model": "delay", "stage": "production"},
)
