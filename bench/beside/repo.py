"""The feature repo that is looked up in."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import feature_repos
from bench.online.servers import post

VIEWS, FEATURES = 3, 10
_START = datetime(2024, 1, 1, tzinfo=UTC)

_DEFINITIONS = f"""\
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
for number in range({VIEWS}):
    globals()[f"view{{number}}"] = FeatureView(
        name=f"view{{number}}",
        entities=[user],
        schema=[Field(name="user_id", dtype=Int64)]
        + [Field(name=f"f{{number}}_{{column}}", dtype=Float64) for column in range({FEATURES})],
        source=FileSource(name=f"events{{number}}", path=f"data/events{{number}}.parquet", timestamp_field="at"),
    )
"""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is: source rows a view, keys, entity rows of one training set, and keys of a materialization."""

    source_rows: int = 2_000_000
    keys: int = 10_000
    entity_rows: int = 300_000
    materialized_keys: int = 1_000_000


def references() -> list[str]:
    """Returns all features as Feast's references."""
    return [f"view{view}:f{view}_{column}" for view in range(VIEWS) for column in range(FEATURES)]


def make_repo(folder: Path, address: str, sizes: Sizes) -> Path:
    """Makes a feature repo with its sources and applies it; returns the body of a retrieval beside it, as a file."""
    (folder / "data").mkdir(parents=True)
    random = np.random.default_rng(3)
    for view in range(VIEWS):
        names = [f"f{view}_{column}" for column in range(FEATURES)]
        # Every key has a first row, so that every lookup finds one.
        keys = np.concatenate([np.arange(sizes.keys), random.integers(0, sizes.keys, sizes.source_rows - sizes.keys)])
        columns = {name: random.random(sizes.source_rows) for name in names}
        table = pa.table({"user_id": keys, "at": _instants(random, sizes.source_rows), **columns})
        pq.write_table(table.sort_by("at"), folder / "data" / f"events{view}.parquet")
    rows = {"user_id": random.integers(0, sizes.keys, sizes.entity_rows)}
    body = folder / "entity_rows.parquet"
    pq.write_table(pa.table({**rows, "event_timestamp": _instants(random, sizes.entity_rows)}), body)
    feature_repos.make_repo(folder, "larder", address, _DEFINITIONS, project="beside")
    return body


def _instants(random: np.random.Generator, count: int) -> pa.Array:
    us = int(_START.timestamp() * 1e6) + random.integers(0, 90 * 86_400 * 1_000_000, count)
    return pa.array(us).cast(pa.timestamp("us", "UTC"))


def fill(port: int) -> None:
    """Materializes what is looked up; a Redis that has been emptied is filled again."""
    body = {"start_ts": _START.isoformat(), "end_ts": (_START + timedelta(days=91)).isoformat()}
    post(port, "/materialize", json.dumps(body).encode())
