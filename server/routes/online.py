"""`POST /get-online-features`: the hot path, in Feast's own JSON, without a model layer in between."""

import msgspec
from fastapi import APIRouter, Request, Response

from server.openapi import json_answer, json_body
from server.policy import JSON
from server.schemas import (
    FeatureVector,
    LookupAnswerBody,
    LookupBody,
    LookupMetadata,
    ViewVersion,
    check_selection,
    decode,
    row_count_of,
)
from server.state import state_of
from store.limits import LOOKUP_FEATURES_MAX, LOOKUP_KEYS_MAX
from store.requests import LookupAnswer, LookupRequest

router = APIRouter(tags=["online"])
_encode = msgspec.json.Encoder().encode

REQUEST_TIME_HEADER = "larder-request-time"


@router.post(
    "/get-online-features",
    openapi_extra=json_body(LookupBody),
    responses={200: json_answer("Values, statuses and event timestamps, column-major.", LookupAnswerBody)},
)
async def get_online_features(request: Request) -> Response:
    """Looks features up for entity keys: Feast's request and answer."""
    body = decode(await request.body(), LookupBody)
    check_selection(body.features, body.feature_service, LOOKUP_FEATURES_MAX)
    row_count = row_count_of(body.entities, "entities", LOOKUP_KEYS_MAX)
    state = state_of(request)
    answer = await state.store.lookup(
        LookupRequest(
            entities=body.entities,
            features=body.features,
            feature_service=body.feature_service,
            full_feature_names=body.full_feature_names,
            include_feature_view_version_metadata=body.include_feature_view_version_metadata,
        )
    )
    state.metrics.count_lookup(answer, row_count)
    headers = {REQUEST_TIME_HEADER: answer.request_time.isoformat()}
    return Response(encoded(answer, body.include_feature_view_version_metadata), 200, headers, JSON)


def encoded(answer: LookupAnswer, with_versions: bool) -> bytes:
    """Returns an answer as Feast's JSON."""
    versions = [ViewVersion(name, version) for name, version in answer.view_versions.items()] if with_versions else None
    columns = zip(answer.values, answer.statuses, answer.event_timestamps, strict=True)
    return _encode(
        LookupAnswerBody(LookupMetadata(answer.feature_names, versions), [FeatureVector(*column) for column in columns])
    )
