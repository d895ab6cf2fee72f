"""What the models ask for."""

from feast import FeatureService
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from views import (
    carrier_departures,
    carrier_facts,
    origin_departures,
    origin_hourly,
    origin_weather,
    plan_against_record,
    plane_arrivals,
    plane_facts,
    route_arrivals,
)

delay_model_v1 = FeatureService(
    name="delay_model_v1",
    features=[origin_weather, plane_facts, carrier_facts, origin_hourly],
    description="First delay model, without windows: weather, plane, airline and the departure board",
    owner="models@flights.example",
    tags={"model": "delay", "stage": "retired"},
)

delay_model_v2 = FeatureService(
    name="delay_model_v2",
    features=[
        origin_weather,
        plane_facts,
        carrier_facts,
        origin_hourly,
        origin_departures,
        carrier_departures,
        plane_arrivals,
        route_arrivals,
        plan_against_record,
    ],
    description="Second delay model: all of the first, what has just happened in windows, and the flight plan",
    owner="models@flights.example",
    tags={"model": "delay", "stage": "production"},
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data/served"), sample_rate=1.0),
)
