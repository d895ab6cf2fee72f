"""On-demand views that are computed when they are written, beside ones that are computed when they are read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64

from store.clock import CLOCK_VARIABLE
from store.feature_store import FeatureStore
from tests.engine.helpers import DAY
from tests.redis_servers import RedisServer
from tests.stores import make_store

NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=780)


def answer(store: FeatureStore, feature: str, shop: int) -> Any:
    return store.get_online_features([feature], {"shop": [shop]}).to_dict()[feature.partition(":")[2]][0]


@pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend
@pytest.mark.parametrize(("ttl", "read_again"), [(timedelta(0), 200.0), (DAY, None)])
def test_what_is_computed_at_write_is_kept_and_what_is_computed_at_read_follows_the_ttl_of_its_source(
    server: RedisServer, repo: Path, monkeypatch: pytest.MonkeyPatch, ttl: timedelta, read_again: float | None
) -> None:
    """Does what `test_odfv_write_methods` of Feast's suite does: all of it holds, but for the value past its ttl."""
    # Feast stamps rows of such views with the system's time.
    monkeypatch.delenv(CLOCK_VARIABLE, raising=False)
    server.client().flushall()
    store = make_store(repo, server.url)
    rows = pd.DataFrame(
        {
            "shop": [1, 2],
            "price": [100.0, 200.0],
            "revenue": [5.0, 10.0],
            "at": [LONG_AGO] * 2,
            "created": [LONG_AGO] * 2,
        }
    )
    rows.to_parquet(repo / "data" / "shops.parquet")
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
    prices = FeatureView(
        name="prices",
        entities=[shop],
        ttl=ttl,
        schema=[
            Field(name="shop", dtype=Int64),
            Field(name="price", dtype=Float64),
            Field(name="revenue", dtype=Float64),
        ],
        source=FileSource(
            path="data/shops.parquet", timestamp_field="at", created_timestamp_column="created", name="shops_file"
        ),
    )

    @on_demand_feature_view(
        entities=[shop], sources=[prices], schema=[Field(name="total", dtype=Float64)], write_to_online_store=True
    )
    def totals(df: pd.DataFrame) -> pd.DataFrame:
        df["total"] = df["price"] + df["revenue"]
        return df

    @on_demand_feature_view(sources=[prices], schema=[Field(name="double", dtype=Float64)])
    def doubles(df: pd.DataFrame) -> pd.DataFrame:
        df["double"] = df["price"] * 2
        return df

    store.apply([shop, prices, totals, doubles])
    store.materialize(LONG_AGO - DAY, LONG_AGO + DAY, feature_views=["totals", "prices"])
    assert answer(store, "totals:total", 1) == 105.0
    new = pd.DataFrame(
        {"shop": [3], "price": [300.0], "revenue": [15.0], "total": [315.0], "at": [NOW], "created": [NOW]}
    )
    store.write_to_online_store("totals", df=new)
    assert answer(store, "totals:total", 3) == 315.0
    assert answer(store, "totals:total", 1) == 105.0
    assert answer(store, "doubles:double", 1) == read_again
