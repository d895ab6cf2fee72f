"""From an order and a body to a retrieval request: all parsing of what a stranger sent happens here."""

from typing import Any

import pyarrow as pa

from server.arrow_bodies import entity_rows_of
from server.body_bounds import check_column_count, check_instants
from server.entity_rows import table_from
from server.parquet_bodies import entity_rows_of_parquet
from server.policy import ARROW_STREAM, PARQUET
from server.retrieval.messages import Order
from server.schemas import HistoricalBody, check_selection, decode, row_count_of
from store.limits import HISTORICAL_ROWS_MAX, LOOKUP_FEATURES_MAX
from store.requests import HistoricalRequest

_READERS = {ARROW_STREAM: entity_rows_of, PARQUET: entity_rows_of_parquet}


def request_of(order: Order, body: Any) -> HistoricalRequest:
    """Returns what is asked for, its entity rows checked as far as that goes without the registry.

    Raises:
        InputError: as its children say.
    """
    if order.content_type in _READERS:
        rows = _READERS[order.content_type](body)
        check_instants(rows, "body")
        return _request(order, rows)
    asked = decode(body, HistoricalBody)
    check_column_count(len(asked.entities), "entities")
    row_count_of(asked.entities, "entities", HISTORICAL_ROWS_MAX)
    check_selection(asked.features, asked.feature_service, LOOKUP_FEATURES_MAX)
    return _request(asked, table_from(asked.entities))


def _request(asked: Order | HistoricalBody, rows: pa.Table) -> HistoricalRequest:
    return HistoricalRequest(
        entity_rows=rows,
        features=asked.features,
        feature_service=asked.feature_service,
        full_feature_names=asked.full_feature_names,
        filter_by_created_timestamp=asked.filter_by_created_timestamp,
    )
