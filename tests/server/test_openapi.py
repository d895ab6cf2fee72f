"""The OpenAPI document is true, and no request that fits it or does not is answered with a fault of the server's."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from server.policy import POLICIES
from tests.redis_servers import free_port
from tests.server.conftest import TOKENS
from tests.server.live import NOW, LiveServer, copy_repo, serving

# The document is for programs, and pages are for people.
PATHS = {path for path, policy in POLICIES.items() if not policy.is_page} - {"/docs", "/openapi.json"}
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
Judge = Callable[[Any, Any], None]


def bearer(scope: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[scope]}"}


def test_the_openapi_document_is_valid_and_names_every_path(server: LiveServer) -> None:
    document = server.get("/openapi.json").json()
    assert set(document["paths"]) == PATHS
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = set(re.findall(r"#/components/schemas/(\w+)", server.get("/openapi.json").text))
    assert names == set(document["components"]["schemas"])


def test_the_openapi_document_tells_of_tokens_where_there_are_any(guarded: LiveServer) -> None:
    document = guarded.get("/openapi.json", headers=bearer("read")).json()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "security" not in document["paths"]["/health"]["get"]
    assert document["paths"]["/push"]["post"]["security"] == [{"token": []}]


# --- requests made from the document ------------------------------------------------------------------


def made_requests(live: LiveServer, judge: Judge, count: int, headers: dict[str, str] | None = None) -> None:
    """Makes requests to every operation of a server's document, half of them against it; each answer is judged."""
    document = live.get("/openapi.json", headers=bearer("read")).json()
    # Tokens are the test's own affair: schemathesis would make some up in the place of those.
    document["components"].pop("securitySchemes", None)
    for operations in document["paths"].values():
        for described in operations.values():
            described.pop("security", None)
    schema = schemathesis.openapi.from_dict(document)
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert {operation.path for operation in operations} == PATHS
    for operation in operations:

        @examples(count)
        @given(st.one_of([operation.as_strategy(generation_mode=mode) for mode in MODES]))
        def check(case: schemathesis.Case) -> None:
            judge(case, case.call(base_url=live.url, headers=headers, timeout=60))

        check()


def examples(count: int) -> settings:
    # A failing request is told as it is: making it smaller would take as many requests again.
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def no_fault(case: Any, answer: Any) -> None:
    assert answer.status_code < 500, f"{told(case)}\n{answer.text}"
    assert answer.status_code < 400 or "detail" in answer.json()


def redis_away_at_worst(case: Any, answer: Any) -> None:
    """Allows 503 in its form as well: Redis is away, which may be over soon."""
    if answer.status_code == 503:
        assert "retry-after" in answer.headers
        assert answer.json()["detail"]
    else:
        no_fault(case, answer)


def source_broken_at_worst(case: Any, answer: Any) -> None:
    """Allows 503 that names one of the two broken sources: nothing that asking again would cure."""
    if answer.status_code == 503:
        assert re.search("lost|lacking", answer.json()["detail"]), answer.text
    else:
        no_fault(case, answer)


def told(case: Any) -> str:
    return case.as_curl_command() if isinstance(case, schemathesis.Case) else repr(case)


def test_no_request_that_fits_the_document_or_does_not_is_answered_with_a_server_error(whole: LiveServer) -> None:
    made_requests(whole, no_fault, 25)


def test_without_a_token_nothing_but_health_is_answered(guarded: LiveServer) -> None:
    def refused(case: schemathesis.Case, answer: Any) -> None:
        assert (answer.status_code == 401) == (case.path != "/health"), f"{told(case)}\n{answer.text}"
        no_fault(case, answer)

    made_requests(guarded, refused, 10)


@pytest.mark.parametrize("scope", TOKENS)
def test_a_token_opens_the_paths_of_its_scope_and_no_other(guarded: LiveServer, scope: str) -> None:
    def judged(case: schemathesis.Case, answer: Any) -> None:
        wanted = POLICIES[case.path].scope
        is_refused = wanted is not None and wanted.value != scope
        assert (answer.status_code == 403) == is_refused, f"{told(case)}\n{answer.text}"
        source_broken_at_worst(case, answer)

    made_requests(guarded, judged, 6, bearer(scope))


# --- requests that are almost right -------------------------------------------------------------------

COLUMNS = ("driver_id", "city", "rate", "trips", "photo", "marks", "tips", "bonus", "event_timestamp", "created")
FEATURES = ["driver_stats:rate", "driver_stats:trips", "driver_stats:photo", "driver_stats:marks", "areas:tips",
            "with_bonus:trips_and_bonus", "driver_stats:none"]  # fmt: skip
VIEWS = ["driver_stats", "areas", "with_bonus", "none"]
INSTANTS = st.sampled_from(
    [NOW.isoformat(), "2013-12-01", "2013-12-01T12:00:00+14:00", "0001-01-01", "9999-12-31T23:59:59Z", "soon", "", 0]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2**31, 2**53, 2**63 - 1, -(2**63)])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", "york", "NaN", "/wA=", "\x00", "\ud83d"])
    | INSTANTS
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


@st.composite
def columns(draw: st.DrawFn) -> dict[str, list[Any]]:
    """Makes columns of known names, mostly of equal lengths; each of one kind of values, or of any."""
    count = draw(st.integers(0, 3))
    names = draw(st.sets(st.sampled_from(COLUMNS), max_size=len(COLUMNS)))
    kinds = [st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=3), INSTANTS, SCALARS, VALUES]
    return {
        name: draw(st.lists(draw(st.sampled_from(kinds)), min_size=count, max_size=draw(st.sampled_from([count, 4]))))
        for name in sorted(names)
    }


ASKED = st.one_of(
    st.fixed_dictionaries({"features": st.lists(st.sampled_from(FEATURES), max_size=4), "entities": columns()}),
    st.fixed_dictionaries({"feature_service": st.sampled_from(["drivers", "none"]), "entities": columns()}),
)
INTERVAL = st.fixed_dictionaries(
    {"start_ts": INSTANTS, "end_ts": INSTANTS}, optional={"feature_views": st.lists(st.sampled_from(VIEWS), max_size=2)}
)
BODIES = {
    "/get-online-features": (ASKED, 100),
    "/get-historical-features": (ASKED, 25),
    "/push": (
        st.fixed_dictionaries(
            {
                "push_source_name": st.sampled_from(["stats_push", "none"]),
                "df": columns(),
                "to": st.sampled_from(["online", "offline", "online_and_offline", "none"]),
            }
        ),
        50,
    ),
    "/write-to-online-store": (
        st.fixed_dictionaries({"feature_view_name": st.sampled_from(VIEWS), "df": columns()}),
        50,
    ),
    "/materialize": (INTERVAL, 10),
    "/materialize-incremental": (st.fixed_dictionaries({"end_ts": INSTANTS}), 5),
}


def almost_right_requests(live: LiveServer, judge: Judge, share: float) -> None:
    """Makes requests of known names and any values, as many of each path as stands above, or a share of that."""
    for path, (bodies, count) in BODIES.items():
        almost_right_requests_to(path, bodies, max(2, int(count * share)), live, judge)


def almost_right_requests_to(path: str, bodies: Any, count: int, live: LiveServer, judge: Judge) -> None:
    @examples(count)
    @given(bodies)
    def check(body: Any) -> None:
        content = json.dumps(body).encode()
        judge((path, content), live.post(path, content=content, headers={"Content-Type": "application/json"}))

    check()


@pytest.mark.parametrize("share", [0.3, pytest.param(2.0, marks=pytest.mark.long)])
def test_no_request_that_is_almost_right_is_answered_with_a_server_error(whole: LiveServer, share: float) -> None:
    almost_right_requests(whole, no_fault, share)


@pytest.fixture(scope="module")
def away(applied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose Redis is not there."""
    repo = copy_repo(applied, tmp_path_factory.mktemp("away") / "repo", f"127.0.0.1:{free_port()}")
    with serving(repo) as live:
        yield live


@pytest.mark.parametrize(("count", "share"), [(2, 0.1), pytest.param(25, 0.5, marks=pytest.mark.long)])
def test_without_redis_every_request_is_answered_in_form(away: LiveServer, count: int, share: float) -> None:
    made_requests(away, redis_away_at_worst, count)
    almost_right_requests(away, redis_away_at_worst, share)
    assert away.get("/health").status_code == 200
    assert away.get("/ready").status_code == 503
