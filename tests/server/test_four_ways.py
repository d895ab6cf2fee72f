"""What a lookup answers (design 3.4), alike by HTTP, by Feast's SDK, by its async twin and by its remote client."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.oracles.rows import status
from tests.server.four_ways import (
    FEATURES,
    FRESH,
    KEEPS_TIMES,
    NOW,
    STALE,
    TTL,
    USERS,
    WAYS,
    WITH_EMPTY_LIST,
    WITHOUT_NAME,
    Answer,
    Refused,
    Ways,
    four_ways,
    written_user,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Feast's own code warns in many ways that are not ours to mend

Look = Callable[..., Answer]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    from feast.permissions.client.http_auth_requests_wrapper import HttpSessionManager

    with four_ways(tmp_path_factory.mktemp("ways")) as ways:
        HttpSessionManager.close_session()
        yield ways
        HttpSessionManager.close_session()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def look(ways: Ways, way: str) -> Look:
    """Looks up by one of the ways."""
    return getattr(ways, way)  # type: ignore[no-any-return]


def plain(answer: Answer, name: str) -> list[tuple[Any, str]]:
    return [(cell.value, cell.status) for cell in answer[name]]


def test_values_and_statuses_come_in_the_order_asked(look: Look) -> None:
    answer = look(["users:name", "users:orders", "users:last"], {"user_id": [2, 1, 99, 1]})
    assert list(answer) == ["user_id", "name", "orders", "last"]
    user_1, nobody = ("user 1", "PRESENT"), (None, "NOT_FOUND")
    assert plain(answer, "name") == [(None, "NULL_VALUE"), user_1, nobody, user_1]
    assert plain(answer, "orders") == [(20, "PRESENT"), (10, "PRESENT"), nobody, (10, "PRESENT")]
    assert plain(answer, "last") == [(None, "NULL_VALUE"), ([1.0], "PRESENT"), nobody, ([1.0], "PRESENT")]
    assert plain(answer, "user_id") == [(2, "PRESENT"), (1, "PRESENT"), (99, "PRESENT"), (1, "PRESENT")]


def test_a_null_in_the_key_finds_nothing(look: Look) -> None:
    answer = look(["users:orders", "pairs:n"], {"user_id": [None, 1], "a": ["x", None], "b": ["yz", "yz"]})
    assert plain(answer, "orders") == [(None, "NOT_FOUND"), (10, "PRESENT")]
    assert plain(answer, "n") == [(1, "PRESENT"), (None, "NOT_FOUND")]
    assert plain(answer, "user_id")[0] == (None, "NULL_VALUE")


def test_an_empty_list_gets_an_empty_answer(look: Look) -> None:
    assert look(["users:orders"], {"user_id": []}) == {"user_id": [], "orders": []}


def test_an_empty_list_is_a_value(look: Look, way: str) -> None:
    if way == "remote_client":
        # Feast's client guesses types from values, and an empty list gives it nothing to guess from.
        with pytest.raises(TypeError, match="infer value type from empty value"):
            look(["users:last"], {"user_id": [WITH_EMPTY_LIST]})
    else:
        assert plain(look(["users:last"], {"user_id": [WITH_EMPTY_LIST]}), "last") == [([], "PRESENT")]


def test_a_row_past_its_ttl_is_withheld_also_its_nulls(look: Look) -> None:
    answer = look(["users:orders", "users:name"], {"user_id": [1, 4, 5]})
    withheld = (None, "OUTSIDE_MAX_AGE")
    assert plain(answer, "orders") == [(10, "PRESENT"), withheld, withheld]
    assert plain(answer, "name") == [("user 1", "PRESENT"), withheld, withheld]


def test_a_feature_that_the_row_was_written_without_is_not_found(look: Look) -> None:
    answer = look(["users:name", "users:orders"], {"user_id": [WITHOUT_NAME]})
    assert plain(answer, "name") == [(None, "NOT_FOUND")]
    assert plain(answer, "orders") == [(60, "PRESENT")]


def test_event_timestamps_are_the_rows_own(look: Look, way: str) -> None:
    answer = look(["users:orders", "users:name"], {"user_id": [1, 2, 4, 99]})
    expected = [FRESH, FRESH, STALE, None] if way in KEEPS_TIMES else [None] * 4
    assert [cell.time for cell in answer["orders"]] == expected
    assert [cell.time for cell in answer["name"]] == expected
    assert [cell.time for cell in answer["user_id"]] == [None] * 4


def test_a_service_computes_its_on_demand_view(look: Look) -> None:
    answer = look("checkout", {"user_id": [1, 99, 4], "amount": [3.0, 3.0, 3.0]})
    assert list(answer) == ["user_id", *FEATURES, "share"]
    assert plain(answer, "share") == [(2.0, "PRESENT"), (None, "NULL_VALUE"), (None, "NULL_VALUE")]
    assert [cell.time for cell in answer["share"]] == [None] * 3


def test_an_on_demand_view_alone_reads_its_sources_and_does_not_show_them(look: Look) -> None:
    answer = look(["basket_share:share"], {"user_id": [1], "amount": [3.0]})
    assert {name: plain(answer, name) for name in answer} == {"user_id": [(1, "PRESENT")], "share": [(2.0, "PRESENT")]}


def test_a_function_of_one_row_is_run_row_by_row(look: Look) -> None:
    answer = look(["shouting:shout"], {"user_id": [1, 2, 3]})
    assert plain(answer, "shout") == [("USER 1", "PRESENT"), (None, "NULL_VALUE"), ("USER 3", "PRESENT")]


def test_a_pandas_function_gets_each_input_once(look: Look) -> None:
    answer = look(["doubled:twice", "users:spent"], {"user_id": [1, 2]})
    assert plain(answer, "twice") == [(3.0, "PRESENT"), (6.0, "PRESENT")]


def test_full_feature_names_carry_the_view(look: Look) -> None:
    answer = look("checkout", {"user_id": [1], "amount": [3.0]}, full_feature_names=True)
    assert list(answer) == ["user_id", *(f"users__{name}" for name in FEATURES), "basket_share__share"]
    assert plain(answer, "users__orders") == [(10, "PRESENT")]
    assert plain(answer, "basket_share__share") == [(2.0, "PRESENT")]


def test_aliases_and_join_key_maps_of_a_service(look: Look) -> None:
    answer = look("gift", {"giver_id": [1, 99], "taker_id": [3, 4]}, full_feature_names=True)
    assert list(answer) == ["giver_id", "taker_id", "giver__orders", "taker__orders"]
    assert plain(answer, "giver__orders") == [(10, "PRESENT"), (None, "NOT_FOUND")]
    assert plain(answer, "taker__orders") == [(30, "PRESENT"), (None, "OUTSIDE_MAX_AGE")]


def test_a_composite_key_finds_its_row_and_no_other(look: Look) -> None:
    entities = {"b": ["z", "yz", "y"], "a": ["xy", "x", "xz"], "user_id": [1, 1, 2]}
    answer = look(["pairs:n", "users:orders"], entities)
    assert list(answer) == ["b", "a", "user_id", "n", "orders"]
    assert plain(answer, "n") == [(2, "PRESENT"), (1, "PRESENT"), (None, "NOT_FOUND")]
    assert plain(answer, "orders") == [(10, "PRESENT"), (10, "PRESENT"), (20, "PRESENT")]


def test_a_view_without_entities_has_one_row(look: Look) -> None:
    assert plain(look(["rates:rate"], {}), "rate") == [(1.25, "PRESENT")]
    answer = look(["rates:rate", "users:orders"], {"user_id": [1, 2, 99]})
    assert plain(answer, "rate") == [(1.25, "PRESENT")] * 3


@pytest.mark.parametrize(
    ("features", "entities", "words"),
    [
        (["users:nope"], {"user_id": [1]}, "'users' has no feature 'nope'"),
        (["nope:a"], {"user_id": [1]}, "'nope' is not registered"),
        (["users"], {"user_id": [1]}, "'view:feature'"),
        (["users:name", "users:name"], {"user_id": [1]}, "ask for it once"),
        ("gift", {"giver_id": [1], "taker_id": [1]}, "set full_feature_names"),
        (["users:name"], {"a": ["x"]}, "'user_id' is missing"),
        (["basket_share:share"], {"user_id": [1]}, "'amount'"),
        (["users:name"], {"user_id": [1], "usr": [1]}, "'usr'"),
        (["users:name"], {"user_id": ["1"]}, "'user_id', row 0"),
        (["users:name"], {"user_id": [1, 2**63]}, "'user_id'"),
        (["users:name"], {"user_id": [True]}, "bool"),
        (["basket_share:share"], {"user_id": [1, 2], "amount": [1.0]}, "lengths"),
        (["basket_share:share"], {"user_id": [1], "amount": [None]}, "'basket_share' failed: TypeError"),
    ],
)
def test_a_wrong_request_is_refused_by_name(look: Look, features: Any, entities: Any, words: str) -> None:
    with pytest.raises(Refused) as refused:
        look(features, entities)
    assert words in str(refused.value).replace('\\"', '"')


KEYS = st.lists(st.sampled_from([*USERS, 99, None]), max_size=6)
ASKED = st.lists(st.sampled_from(FEATURES), min_size=1, unique=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=KEYS, asked=ASKED, is_full=st.booleans())
def test_random_lookups_are_answered_as_the_model_says(
    look: Look, way: str, keys: list[int | None], asked: list[str], is_full: bool
) -> None:
    answer = look([f"users:{name}" for name in asked], {"user_id": keys}, full_feature_names=is_full)
    names = [f"users__{name}" if is_full else name for name in asked]
    assert list(answer) == ["user_id", *names]
    now_us, ttl_us = int(NOW.timestamp()) * 1_000_000, TTL // timedelta(microseconds=1)
    for name, feature in zip(names, asked, strict=True):
        rows = [None if key is None else written_user(key) for key in keys]
        expected = [status(row, feature, ttl_us, now_us) for row in rows]
        assert [(cell.status, cell.value) for cell in answer[name]] == expected
        if way in KEEPS_TIMES:
            times = [None if row is None or key is None else USERS[key][0] for row, key in zip(rows, keys, strict=True)]
            assert [cell.time for cell in answer[name]] == times
