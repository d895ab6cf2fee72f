"""The feature repos of the benchmark: the same 30 features in 3 views, once over Larder's stores, once over Feast's."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.feature_repos import feast

VIEWS = 3
KEY = "user_id"
# Of one view, ten features: a type of Feast's, and how many there are.
TYPES = {"Float64": 4, "Int64": 3, "Int32": 1, "Bool": 1, "String": 1}
TEXT_BYTES = 16
PAYLOAD_BYTES = VIEWS * (4 * 8 + 3 * 8 + 4 + 1 + TEXT_BYTES)
"""What the values of one key take without anything around them."""


def feature_types() -> list[tuple[str, str]]:
    """Returns the names of one view's features without the view's number, each with its type."""
    kinds = [kind for kind, count in TYPES.items() for _ in range(count)]
    return [(f"f{number}", kind) for number, kind in enumerate(kinds)]


def references() -> list[str]:
    """Returns all features as Feast's references."""
    return [f"view{view}:v{view}_{name}" for view in range(VIEWS) for name, _ in feature_types()]


def definitions(source_folder: Path) -> str:
    """Returns the definitions, the same for both: a long ttl, so that ages are checked and nothing is withheld."""
    fields = [f'Field(name=f"v{{view}}_{name}", dtype={kind})' for name, kind in feature_types()]
    return f"""\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Float64, Int32, Int64, String

user = Entity(name="user", join_keys=["{KEY}"], value_type=ValueType.INT64)
views = [
    FeatureView(
        name=f"view{{view}}",
        entities=[user],
        ttl=timedelta(days=365),
        schema=[Field(name="{KEY}", dtype=Int64), {", ".join(fields)}],
        source=FileSource(
            name=f"source{{view}}", path=f"{source_folder}/source{{view}}.parquet", timestamp_field="event_timestamp"
        ),
    )
    for view in range({VIEWS})
]
view0, view1, view2 = views
everything = FeatureService(name="everything", features=views)
"""


def write_sources(folder: Path, keys: int) -> None:
    """Writes one Parquet file a view, with one row a key."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(11)
    start_us = int((datetime.now(UTC) - timedelta(hours=2)).timestamp() * 1e6)
    for view in range(VIEWS):
        columns: dict[str, pa.Array] = {KEY: pa.array(np.arange(keys))}
        for name, kind in feature_types():
            columns[f"v{view}_{name}"] = _values(random, kind, keys)
        at = pa.array(start_us + random.integers(0, 3_600_000_000, keys)).cast(pa.timestamp("us", "UTC"))
        pq.write_table(pa.table({**columns, "event_timestamp": at}), folder / f"source{view}.parquet")


def _values(random: np.random.Generator, kind: str, count: int) -> pa.Array:
    if kind == "Float64":
        return pa.array(random.random(count))
    if kind == "Bool":
        return pa.array(random.integers(0, 2, count).astype(bool))
    if kind == "String":
        return pa.array([f"{number:0{TEXT_BYTES}x}" for number in random.integers(0, 2**63, count).tolist()])
    bound = 2**31 if kind == "Int32" else 2**62
    return pa.array(random.integers(-bound, bound, count), pa.int32() if kind == "Int32" else pa.int64())


def materialize(repo: Path) -> None:
    """Fills Redis by the stock command line."""
    now = datetime.now(UTC)
    feast(repo, "materialize", (now - timedelta(days=1)).isoformat(), now.isoformat())
