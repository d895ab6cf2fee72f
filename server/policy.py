"""What each path demands before its handler runs: a scope, kinds of body, and how large a body may be.

A path that is not in this table does not exist: the guards answer 404 themselves. So no spelling of a path that
the router would accept, but the table does not know, reaches a handler with the wrong scope.
"""

from dataclasses import dataclass, field

from server.auth import Scope
from server.limits import (
    BODIES_BYTES_MAX,
    FORM_BODY_BYTES_MAX,
    HISTORICAL_JSON_BODY_BYTES_MAX,
    LOGIN_BODY_BYTES_MAX,
    SMALL_BODY_BYTES_MAX,
)
from store.limits import HISTORICAL_BODY_BYTES_MAX, LOOKUP_BODY_BYTES_MAX, PUSH_BODY_BYTES_MAX

JSON = "application/json"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What one path demands. `scope` None means that no token is needed; `query` names the parameters that it takes.

    `is_page` says that people read its answers, refusals too; `takes_cookie` that whoever has logged in to the pages
    may read it.

    Units: `body_bytes_max` maps each content type accepted to the greatest body in bytes; empty: no body at all.
        `bodies_bytes_max` bounds all bodies of the path that a worker has in memory; None: its handler does that.
    """

    scope: Scope | None
    body_bytes_max: dict[str, int] = field(default_factory=dict)
    query: frozenset[str] = frozenset()
    bodies_bytes_max: int | None = BODIES_BYTES_MAX
    is_page: bool = False
    takes_cookie: bool = False


_READ_ONLY = RoutePolicy(Scope.READ)


def _page(*query: str, form_bytes_max: int = 0) -> RoutePolicy:
    bodies = {FORM: form_bytes_max} if form_bytes_max else {}
    return RoutePolicy(Scope.READ, bodies, frozenset(query), is_page=True, takes_cookie=True)


def _seen(*query: str) -> RoutePolicy:
    """Returns the policy of what pages link to or load."""
    return RoutePolicy(Scope.READ, query=frozenset(query), takes_cookie=True)


_PAGES: dict[str, RoutePolicy] = {
    "/": _page("q", "kind", "page"),
    "/view": _page("name"),
    "/feature": _page("view", "name"),
    "/entity": _page("name"),
    "/source": _page("name"),
    "/service": _page("name"),
    "/training-set": _page("name"),
    "/lineage": _page(),
    "/freshness": _page(),
    "/drift": _page(),
    "/audit": _page(),
    "/lookup": _page("service", "features", form_bytes_max=FORM_BODY_BYTES_MAX),
    # Whoever has not logged in yet has nothing to show.
    "/login": RoutePolicy(None, {FORM: LOGIN_BODY_BYTES_MAX}, frozenset({"next"}), is_page=True),
    "/logout": RoutePolicy(None, {FORM: LOGIN_BODY_BYTES_MAX}, is_page=True),
    "/api/catalogue": _seen("q", "kind", "offset", "limit"),
    "/api/view": _seen("name"),
    "/api/feature": _seen("view", "name"),
    "/api/entity": _seen("name"),
    "/api/source": _seen("name"),
    "/api/service": _seen("name"),
    "/api/training-set": _seen("name"),
    "/api/lineage": _seen("kind", "name"),
}

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
    "/docs": _seen(),
    "/openapi.json": _seen(),
    "/api/freshness": _seen(),
    "/api/status": _seen(),
    "/api/audit": _seen(),
    **_PAGES,
}

_PREFIXES: tuple[tuple[str, RoutePolicy], ...] = (
    ("/docs-assets/", _seen()),
    # The style sheet of the login page, and nothing that a feature repo holds.
    ("/static/", RoutePolicy(None, query=frozenset({"v"}))),
)


def policy_for(path: str) -> RoutePolicy | None:
    """Returns what a path demands, or None if there is no such path."""
    policy = POLICIES.get(path)
    if policy is None:
        policy = next((policy for prefix, policy in _PREFIXES if path.startswith(prefix)), None)
    return policy
