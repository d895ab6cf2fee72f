"""Settings of a connection as the tests make them."""

from types import SimpleNamespace
from typing import Any

SECRET = "s3cret-Pässword"


def config(connection_string: str, redis_type: Any = "redis", sentinel_master: str = "mymaster") -> SimpleNamespace:
    return SimpleNamespace(connection_string=connection_string, redis_type=redis_type, sentinel_master=sentinel_master)
