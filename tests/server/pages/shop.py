"""A repo to be looked at: an ordinary shop, and a corner in which every name and text means harm."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.kernel.histograms import Histogram
from store.kernel.profiles import Categories, ColumnProfile, Kind, Numbers
from tests.server.live import apply

SCRIPT = "<script>document.title='owned'</script>"
QUOTES = "\"'`&<>{{7*7}}{% raw %}"
LONG = "l" * 900
RTL = "\u202egnp.exe \u05d0\u05d1"
PATH = "../..?x=1&y=2#z/%2e%2e"
HOSTILE = (SCRIPT, QUOTES, LONG, RTL, PATH)
NOW = datetime.now(UTC).replace(microsecond=0)

_YAML = """\
project: shop
provider: local
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: embedded
batch_engine:
  type: store.engine.DuckDBComputeEngine
entity_key_serialization_version: 3
"""

_DEFINITIONS = """\
from datetime import timedelta

from feast import BatchFeatureView, Entity, FeatureService, FeatureView, Field, FileSource, PushSource, RequestSource
from feast import ValueType
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp

from tests.server.pages.shop import HOSTILE

customer = Entity(
    name="customer", join_keys=["customer_id"], value_type=ValueType.INT64, description="Who buys",
    owner="shop@x.example",
)
orders = FileSource(
    name="orders", path="data/orders.parquet", timestamp_field="at", created_timestamp_column="created",
    description="What was ordered",
)
spending = FeatureView(
    name="spending",
    entities=[customer],
    ttl=timedelta(days=2),
    schema=[
        Field(name="customer_id", dtype=Int64),
        Field(name="total", dtype=Float64, description="Spent so far"),
        Field(name="visits", dtype=Int64, description="Times here"),
        Field(name="city", dtype=String),
        Field(name="is_member", dtype=Bool),
        Field(name="last_items", dtype=Array(Int64)),
        Field(name="joined", dtype=UnixTimestamp),
    ],
    source=PushSource(name="orders_push", batch_source=orders),
    description="What customers spend",
    owner="shop@x.example",
    tags={"domain": "sales"},
)
recent = BatchFeatureView(
    name="recent",
    entities=[customer],
    online=True,
    schema=[Field(name="customer_id", dtype=Int64), Field(name="visits_2h", dtype=Int64)],
    source=orders,
    aggregations=[Aggregation("visits", "sum", timedelta(hours=2), timedelta(minutes=5), "visits_2h")],
)


@on_demand_feature_view(
    sources=[spending, RequestSource(name="basket", schema=[Field(name="basket_value", dtype=Float64)])],
    schema=[Field(name="share", dtype=Float64)],
    mode="python",
    description="The basket against all before",
)
def basket_share(inputs):
    pairs = zip(inputs["basket_value"], inputs["total"])
    return {"share": [None if b is None or not t else b / t for b, t in pairs]}


checkout = FeatureService(
    name="checkout", features=[spending[["total", "visits"]], recent, basket_share], description="What the till asks",
    owner="shop@x.example", tags={"stage": "production"},
)

for place, text in enumerate(HOSTILE):
    hurt = Entity(name=text, join_keys=[f"key {text}"], value_type=ValueType.STRING, description=text, owner=text,
                  tags={text: text})
    view = FeatureView(
        name=f"{text} view",
        entities=[hurt],
        schema=[
            Field(name=f"key {text}", dtype=String),
            Field(name=text, dtype=Float64, description=text, tags={text: text}),
        ],
        source=FileSource(name=f"{text} source", path=f"data/hostile{place}.parquet", timestamp_field="at",
                          description=text, owner=text, tags={text: text}),
        description=text, owner=text, tags={text: text},
    )
    service = FeatureService(name=f"{text} service", features=[view], description=text, owner=text, tags={text: text})
    # Feast takes what stands in the module by a name of its own.
    globals().update({f"hurt{place}": hurt, f"view{place}": view, f"service{place}": service})
"""


def write_shop(folder: Path) -> Path:
    """Writes and applies the repo; its sources hold a few rows."""
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(_YAML)
    (folder / "definitions.py").write_text(_DEFINITIONS)
    at = pa.array([NOW - timedelta(minutes=5 * each) for each in range(4)], pa.timestamp("us", "UTC"))
    orders = pa.table(
        {
            "customer_id": [1, 2, 3, 4],
            "total": [10.5, 20.0, None, 0.0],
            "visits": [1, 2, 3, None],
            "city": ["york", SCRIPT, RTL, None],
            "is_member": [True, False, None, True],
            "last_items": pa.array([[1, 2], [], None, [3]], pa.list_(pa.int64())),
            "joined": at,
            "at": at,
            "created": at,
        }
    )
    pq.write_table(orders, folder / "data" / "orders.parquet")
    for place, text in enumerate(HOSTILE):
        pq.write_table(
            pa.table({f"key {text}": [text], text: [1.5], "at": at[:1]}), folder / "data" / f"hostile{place}.parquet"
        )
    apply(folder)
    return folder


def numbers(values: list[float], **more: object) -> Numbers:
    """The profile of some numbers."""
    import numpy as np

    found = np.array(values, float)
    with np.errstate(over="ignore"):
        mean = float(found.mean()) if values else 0.0
        squares = float(((found - mean) ** 2).sum())
    return Numbers(
        Histogram.of(found), min(values, default=None), max(values, default=None), mean, squares,
        all(value == int(value) for value in values), **more,
    )  # fmt: skip


def column(name: str, values: list[float]) -> ColumnProfile:
    """The profile of a column of numbers."""
    return ColumnProfile(name, "Float64", Kind.NUMBER, len(values) + 1, 1, numbers=numbers(values))


def texts(name: str, counts: dict[str, int]) -> ColumnProfile:
    """The profile of a column of texts."""
    return ColumnProfile(name, "String", Kind.CATEGORY, sum(counts.values()), 0, categories=Categories(counts))
