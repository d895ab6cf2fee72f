"""Windowed views with a row-level transformation: stream, batch and training aggregate what comes out of it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from feast.data_source import PushMode

from store.errors import TransformationError
from store.feature_store import FeatureStore
from store.online.dead_letters import read_letters
from store.stream.context import StreamContext
from tests.redis_servers import RedisServer
from tests.stream.conftest import StartWorker, wait_until_done
from tests.stream.shop import DAY, HOUR, NOW, by_page, by_user, clicks, landed, sums

pytestmark = [
    # Feast says this wherever such a view is made; nobody can act on it.
    pytest.mark.filterwarnings("ignore:Stream feature views are experimental:RuntimeWarning"),
]


def dearer(frame: pd.DataFrame) -> pd.DataFrame:
    """Leaves out what is worth nothing, and doubles the rest; with a new index, as people do."""
    frame = frame[frame["worth"] > 0].reset_index(drop=True)
    return frame.assign(worth=frame["worth"] * 2)


def dearer_in_lists(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    kept = [worth is not None and worth > 0 for worth in columns["worth"]]
    left = {name: [v for v, is_kept in zip(values, kept, strict=True) if is_kept] for name, values in columns.items()}
    return {**left, "worth": [worth * 2 for worth in left["worth"]]}


def transformed(function: Any = dearer, mode: str = "pandas") -> Any:
    return by_user(udf=function, udf_string="", mode=mode)


def asked(store: FeatureStore, users: list[int]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Returns the features of users as they are looked up, and as training has them."""
    names = ["count_worth_1h", "sum_worth_1d", "last3"]
    features = [f"by_user:{name}" for name in names]
    online = store.get_online_features(features, {"user_id": users}).to_dict()
    rows = pa.table({"user_id": users, "event_timestamp": [NOW] * len(users)})
    table = store.get_historical_features(rows, features).to_arrow()
    return (
        list(zip(*(online[name] for name in names), strict=True)),
        list(zip(*(table.column(name).to_pylist() for name in names), strict=True)),
    )


@pytest.mark.parametrize(("function", "mode"), [(dearer, "pandas"), (dearer_in_lists, "python")])
def test_stream_batch_and_training_aggregate_what_comes_out(
    repo: Path, server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker,
    function: Any, mode: str,
) -> None:  # fmt: skip
    view = transformed(function, mode)
    shop.apply([view])
    shop.push("clicks", clicks([0.0, 1.0, -1.0, 2.0], 1), to=PushMode.ONLINE_AND_OFFLINE)
    shop.push("clicks", clicks([None, 0.0], 2), to=PushMode.ONLINE_AND_OFFLINE)
    shop.push("clicks", clicks([5.0, 0.0], 3, minutes=13 * 60), to=PushMode.ONLINE_AND_OFFLINE)
    start_worker()
    wait_until_done(context)
    # They land as they came, and a view without the function has them as they are.
    assert len(landed(repo)) == 8
    assert sums(server, by_page(), "sum_worth", ["home"]) == [7.0]
    assert sums(server, view, "sum_worth_1d", [1, 2, 3]) == [6.0, None, 10.0]
    assert context.letters == 0
    expected = [(2, 6.0, [4.0, 2.0]), (0, None, None), (0, 10.0, [10.0])]
    shop.materialize(NOW - DAY, NOW - 12 * HOUR)
    shop.push("clicks", clicks([7.0, 0.0], 2, minutes=20), to=PushMode.ONLINE_AND_OFFLINE)
    wait_until_done(context)
    expected[1] = (1, 14.0, [14.0])
    online, training = asked(shop, [1, 2, 3])
    assert online == training == expected
    # The batch side takes in what the stream had, and nothing counts twice.
    shop.materialize(NOW - DAY, NOW)
    assert asked(shop, [1, 2, 3]) == (expected, expected)


def test_a_push_by_which_the_function_fails_is_not_logged(shop: FeatureStore, server: RedisServer) -> None:
    def fails(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(worth=[[2.0, 3.0][int(worth)] for worth in frame["worth"]])

    shop.apply([transformed(fails)])
    with pytest.raises(TransformationError, match=r"push source 'clicks', row 2: .*'fails' failed: IndexError"):
        shop.push("clicks", clicks([0.0, 1.0, 2.0]), to=PushMode.ONLINE)
    assert [key for key in server.client().keys("*log:*") if server.client().type(key) == b"stream"] == []


def test_a_logged_row_that_fails_by_a_changed_function_hides_no_other(
    server: RedisServer, shop: FeatureStore, context: StreamContext, start_worker: StartWorker
) -> None:
    shop.push("clicks", clicks([1.0, 13.0, 4.0, 0.0, 13.0]), to=PushMode.ONLINE)

    def superstitious(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        if 13.0 in columns["worth"]:
            raise ValueError("13")
        kept = [worth > 0 for worth in columns["worth"]]
        return {name: [v for v, k in zip(vs, kept, strict=True) if k] for name, vs in columns.items()}

    view = transformed(superstitious, "python")
    shop.apply([view])
    start_worker()
    wait_until_done(context)
    assert sums(server, view, "sum_worth_1d", [1]) == [5.0]
    assert sums(server, by_page(), "sum_worth", ["home"]) == [31.0]
    letters = [kept.letter for kept in context.session.hold(read_letters(context.project))]
    assert [letter.place.rpartition("/")[2] for letter in letters] == ["by_user", "by_user"]
    assert all("'superstitious' failed: ValueError: 13" in letter.reason for letter in letters)
    assert all('"worth":13.0' in letter.row for letter in letters)
