"""From errors to answers: the one table class -> status, and the one shape `{"detail": ...}`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from server.limits import DETAIL_CHARS_MAX, UNAVAILABLE_RETRY_SECONDS
from server.policy import policy_for
from store import errors
from store.errors import LarderError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

STATUS: dict[type[LarderError], int] = {
    # Ours to have foreseen: an error without a class of its own is a fault of the server.
    errors.LarderError: 500,
    errors.InputError: 422,
    errors.UnknownObject: 404,
    errors.MissingJoinKey: 422,
    errors.UnequalLengths: 422,
    errors.WrongType: 422,
    errors.EntityRowsError: 422,
    errors.PushedRowsError: 422,
    errors.TransformationError: 422,
    errors.BadBody: 422,
    errors.OtherPush: 422,
    errors.TooLarge: 413,
    # The operator's to repair; repeating the request does not help, so no Retry-After.
    errors.DefinitionError: 500,
    errors.ConfigError: 500,
    errors.SourceError: 503,
    errors.SourceUnreadable: 503,
    errors.SourceColumnMissing: 503,
    errors.OfflineStoreError: 500,
    errors.OutOfSpace: 507,
    errors.RegistryUnavailable: 503,
    errors.RegistryConflict: 409,
    errors.OnlineStoreError: 503,
    errors.OnlineStoreUnavailable: 503,
    errors.OnlineStoreTimeout: 503,
    errors.StoredRowError: 503,
    errors.LogEntryError: 503,
    errors.LogFull: 503,
    errors.OwnershipLost: 503,
    errors.MaterializationBusy: 409,
}
"""HTTP status of every class of `store.errors`; a class that is not here takes that of its nearest ancestor."""

_RETRY_LATER = (errors.OnlineStoreError, errors.RegistryUnavailable)

FEAST_STATUS: dict[str, int] = {
    # By name, because importing Feast takes seconds and the server's guards do without it.
    "RequestDataNotFoundInEntityDfException": 422,
    "RequestDataNotFoundInEntityRowsException": 422,
    "FeastObjectNotFoundException": 404,
    "PushSourceNotFoundException": 404,
    "FeastPermissionError": 403,
    "FeatureNameCollisionError": 422,
    "FeastEntityDFMissingColumnsError": 422,
    "EntityTimestampInferenceException": 422,
    "EntityDFNotDateTime": 422,
    "InvalidEntityType": 422,
    "InvalidFeaturesParameterType": 422,
    "SpecifiedFeaturesNotPresentError": 422,
    "ProjectNotFoundException": 503,
}
"""HTTP status of Feast's own exceptions that can come through its Python paths; nearest ancestor first, others 500."""


def status_of(error: LarderError) -> int:
    """Returns the HTTP status of an error."""
    return next(STATUS[ancestor] for ancestor in type(error).__mro__ if ancestor in STATUS)


def answer_to(error: LarderError, scope: "Scope | None" = None) -> Response:
    """Returns the answer to an error that Larder raised on purpose; as a page, if the request was for one."""
    headers = {}
    if isinstance(error, _RETRY_LATER):
        headers["Retry-After"] = str(UNAVAILABLE_RETRY_SECONDS)
    if isinstance(error, errors.TooLarge):
        # The rest of a body may not have been read, so the connection cannot carry another request.
        headers["Connection"] = "close"
    if scope is not None:
        return refusal(scope, status_of(error), str(error), headers)
    return answer(status_of(error), str(error), headers)


def feast_status_of(error: Exception) -> int | None:
    """Returns the HTTP status of one of Feast's own exceptions, or None if it is something else."""
    if not any(ancestor.__module__ == "feast.errors" for ancestor in type(error).__mro__):
        return None
    return next((FEAST_STATUS[name.__name__] for name in type(error).__mro__ if name.__name__ in FEAST_STATUS), 500)


def answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer of the one shape that all refusals have."""
    if len(detail) > DETAIL_CHARS_MAX:
        detail = f"{detail[: DETAIL_CHARS_MAX * 3 // 4]} ... {detail[-DETAIL_CHARS_MAX // 4 :]}"
    # A message may quote what a client sent, also half of a surrogate pair, which UTF-8 cannot carry.
    sayable = detail.encode("utf-8", "backslashreplace").decode()
    return Response(msgspec.json.encode({"detail": sayable}), status, headers, media_type="application/json")


async def refuse(
    scope: "Scope", receive: "Receive", send: "Send", status: int, detail: str, headers: Mapping[str, str] | None = None
) -> None:
    """Sends a refusal from a guard, in front of all handlers."""
    await refusal(scope, status, detail, headers)(scope, receive, send)


def refusal(scope: "Scope", status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a refusal in the form that its reader expects: a page for people, JSON for all others."""
    if is_for_people(scope):
        from server.pages.plain import refusal_page

        return refusal_page(status, detail, headers)
    return answer(status, detail, headers)


def is_for_people(scope: "Scope") -> bool:
    """Whether a request is for a page; of a path that does not exist, whether it prefers HTML, as browsers do."""
    policy = policy_for(scope["path"])
    if policy is not None:
        return policy.is_page
    accepted = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    return accepted.lstrip().lower().startswith(b"text/html")
