"""What each path demands before its handler runs: a scope, kinds of body, and how large a body may be.

A path that is not in this table does not exist: the guards answer 404 themselves. So no spelling of a path that
the router would accept, but the table does not know, reaches a handler with the wrong scope.
"""

from dataclasses import dataclass, field

from server.auth import Scope
from server.limits import BODIES_BYTES_MAX, HISTORICAL_JSON_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX
from store.limits import HISTORICAL_BODY_BYTES_MAX, LOOKUP_BODY_BYTES_MAX, PUSH_BODY_BYTES_MAX

JSON = "application/json"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What one path demands. `scope` None means that no token is needed; `query` names the parameters that it takes.

    Units: `body_bytes_max` maps each content type accepted to the greatest body in bytes; empty: no body at all.
        `bodies_bytes_max` bounds all bodies of the path that a worker has in memory; None: its handler does that.
    """

    scope: Scope | None
    body_bytes_max: dict[str, int] = field(default_factory=dict)
    query: frozenset[str] = frozenset()
    bodies_bytes_max: int | None = BODIES_BYTES_MAX


_READ_ONLY = RoutePolicy(Scope.READ)

POLICIES: dict[str, RoutePolicy] = {
    "/get-online-features": RoutePolicy(Scope.READ, {JSON: LOOKUP_BODY_BYTES_MAX}),
    "/get-historical-features": RoutePolicy(
        Scope.READ,
        {
            JSON: HISTORICAL_JSON_BODY_BYTES_MAX,
            ARROW_STREAM: HISTORICAL_BODY_BYTES_MAX,
            PARQUET: HISTORICAL_BODY_BYTES_MAX,
        },
        query=frozenset({"features", "feature_service", "full_feature_names", "filter_by_created_timestamp"}),
        bodies_bytes_max=None,
    ),
    "/push": RoutePolicy(Scope.WRITE, {JSON: PUSH_BODY_BYTES_MAX}),
    "/write-to-online-store": RoutePolicy(Scope.WRITE, {JSON: PUSH_BODY_BYTES_MAX}),
    "/materialize": RoutePolicy(Scope.ADMIN, {JSON: SMALL_BODY_BYTES_MAX}, query=frozenset({"async"})),
    "/materialize-incremental": RoutePolicy(Scope.ADMIN, {JSON: SMALL_BODY_BYTES_MAX}, query=frozenset({"async"})),
    "/health": RoutePolicy(None),
    "/ready": _READ_ONLY,
    "/metrics": _READ_ONLY,
    "/api/freshness": _READ_ONLY,
    "/api/status": _READ_ONLY,
    "/api/audit": _READ_ONLY,
    "/docs": _READ_ONLY,
    "/openapi.json": _READ_ONLY,
}

_PREFIXES: tuple[tuple[str, RoutePolicy], ...] = (("/docs-assets/", _READ_ONLY),)


def policy_for(path: str) -> RoutePolicy | None:
    """Returns what a path demands, or None if there is no such path."""
    policy = POLICIES.get(path)
    if policy is None:
        policy = next((policy for prefix, policy in _PREFIXES if path.startswith(prefix)), None)
    return policy
