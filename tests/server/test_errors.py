import inspect

import msgspec
import pytest

from server.errors import FEAST_STATUS, STATUS, answer, answer_to, feast_status_of, status_of
from store import errors
from store.errors import LarderError

ALL_ERRORS = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, LarderError) and found.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.__name__)
def test_every_error_of_the_tree_has_a_status(error: type[LarderError]) -> None:
    assert error in STATUS, f"{error.__name__} has no status; add it to server/errors.py"


@pytest.mark.parametrize("error", ALL_ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_answered_with_its_message_and_nothing_else(error: type[LarderError]) -> None:
    response = answer_to(error("thing 'x': got 1, expected 2; do 3"))
    assert response.status_code == STATUS[error]
    assert msgspec.json.decode(response.body) == {"detail": "thing 'x': got 1, expected 2; do 3"}


def test_the_callers_faults_are_4xx_and_all_others_are_not() -> None:
    for error, status in STATUS.items():
        is_callers = issubclass(error, errors.InputError | errors.MaterializationBusy | errors.RegistryConflict)
        assert (400 <= status < 500) == is_callers, error


def test_an_error_defined_elsewhere_takes_the_status_of_its_nearest_ancestor() -> None:
    class TooWide(errors.TooLarge):
        pass

    assert status_of(TooWide("x")) == 413


@pytest.mark.parametrize(
    "error", [errors.OnlineStoreTimeout, errors.OnlineStoreUnavailable, errors.RegistryUnavailable]
)
def test_what_comes_back_by_itself_says_when_to_retry(error: type[LarderError]) -> None:
    assert int(answer_to(error("x")).headers["retry-after"]) > 0


def test_what_an_operator_must_repair_does_not_invite_to_retry() -> None:
    assert "retry-after" not in answer_to(errors.SourceColumnMissing("x")).headers


def test_feasts_exceptions_have_statuses_and_exist_under_their_names() -> None:
    import feast.errors

    for name in FEAST_STATUS:
        assert issubclass(getattr(feast.errors, name), feast.errors.FeastError), name
    assert feast_status_of(feast.errors.FeatureViewNotFoundException("v")) == 404
    assert feast_status_of(feast.errors.FeatureServiceNotFoundException("s")) == 404
    assert feast_status_of(feast.errors.PushSourceNotFoundException("p")) == 404
    assert feast_status_of(feast.errors.RequestDataNotFoundInEntityRowsException(["r"])) == 422
    assert feast_status_of(feast.errors.FeastProviderLoginError("x")) == 500
    assert feast_status_of(ValueError("x")) is None


def test_a_message_that_quotes_half_a_surrogate_pair_can_be_sent() -> None:
    assert msgspec.json.decode(answer(422, "column '\ud800'").body) == {"detail": "column '\\ud800'"}
