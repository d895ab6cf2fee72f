"""What the features are about. A route is an origin and a destination: a key of two columns."""

from feast import Entity, ValueType

origin = Entity(
    name="origin",
    join_keys=["origin"],
    value_type=ValueType.STRING,
    description="Airport of departure: EWR, JFK or LGA",
    owner="airports@flights.example",
    tags={"domain": "airports"},
)

dest = Entity(
    name="dest",
    join_keys=["dest"],
    value_type=ValueType.STRING,
    description="Airport of arrival by its FAA code; with origin it makes a route",
    owner="airports@flights.example",
    tags={"domain": "airports"},
)

plane = Entity(
    name="plane",
    join_keys=["tailnum"],
    value_type=ValueType.STRING,
    description="Aircraft by its tail number",
    owner="fleet@flights.example",
    tags={"domain": "fleet"},
)

carrier = Entity(
    name="carrier",
    join_keys=["carrier"],
    value_type=ValueType.STRING,
    description="Airline by its two-letter code",
    owner="airlines@flights.example",
    tags={"domain": "airlines"},
)
