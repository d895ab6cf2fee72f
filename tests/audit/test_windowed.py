"""Windowed views in a logged service: their tiles are told in the log."""

import pyarrow.parquet as pq
from feast import FeatureService
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination

from store.clock import to_us
from store.definitions_from_feast import view_definition
from store.kernel.keys import entity_key_encoder
from store.kernel.stream_tiles import StreamEvent
from store.kernel.windows import input_columns
from store.online import RedisOnlineStore
from store.online.windows import apply_stream
from tests.audit.logged_shop import DAY, LOG, LoggedShop, features_of, lost_of
from tests.engine.test_windows import windows
from tests.stores import NOW, USER, user_view

LOG_ID = to_us(NOW) + 7


def test_tiles_that_were_merged_are_told(shop: LoggedShop) -> None:
    logging = LoggingConfig(FileLoggingDestination(path=LOG))
    view, windowed = user_view(), windows()
    service = FeatureService(name="checkout", features=[windowed, view], logging_config=logging)
    shop.store.apply([USER, view, windowed, service])
    shop.serve_users([1, 2])
    shop.materialize(NOW - 20 * DAY)
    definition = view_definition("shop", shop.store.get_feature_view("user_windows"))
    key = entity_key_encoder("shop", definition.join_keys).encode([1])
    assert key is not None
    values = {"orders": 5, "spent": 1.0, "name": "x"}
    event = StreamEvent(
        LOG_ID, LOG_ID, False, to_us(NOW), None, tuple(values[name] for name in input_columns(definition.windows))
    )
    online = RedisOnlineStore()
    applied = apply_stream(online.knowledge("shop"), definition, {key: [event]}, line_id=0, now_us=LOG_ID)
    assert online.session(shop.store.config).hold(applied) == 1
    online.close_synchronous()
    shop.serve_users([1, 2, None])
    first, second = sorted((shop.repo / LOG).glob("*.parquet"))
    table = pq.read_table(second)
    marks = {name: table.column(f"user_windows__tiles__{name}").to_pylist() for name in (
        "generation", "applied_through", "batch_end_us", "line_id"
    )}  # fmt: skip
    assert marks["applied_through"] == [LOG_ID, 0, None]
    assert marks["generation"] == [2, 2, None], "each run makes one"
    assert marks["batch_end_us"] == [to_us(NOW.replace(hour=0))] * 2 + [None]
    before = pq.read_table(first)
    assert before.column("user_windows__tiles__batch_end_us").to_pylist() == [None, None]
    assert table.column("user_windows__count_orders_86400s").to_pylist()[0] >= 1
    assert [name for name in table.column_names if name.startswith("user_windows__row__")] == []
    told = shop.audit()
    assert {name.partition(":")[0] for name in features_of(told)} == {"users", "user_windows"}
    assert told["services"][0]["not_audited"] == {}
    assert told["is_clean"] is True
    assert lost_of(told)["user_windows:count_orders_86400s"] == {"not kept": 1}, "it came by no log"
