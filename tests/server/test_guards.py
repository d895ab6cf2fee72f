import asyncio
import json
import socket
from typing import Any

import httpx
import pytest
from starlette.exceptions import HTTPException

from server.guards import BodyGuard
from server.limits import BODIES_BYTES_MAX
from server.policy import POLICIES, policy_for
from store.limits import PUSH_BODY_BYTES_MAX
from tests.server.conftest import TOKENS
from tests.server.live import LiveServer

LOOKUP = {"entities": {"driver_id": [1]}, "features": ["driver_stats:rate"]}
SCOPES = {
    "/get-online-features": "read",
    "/get-historical-features": "read",
    "/ready": "read",
    "/metrics": "read",
    "/docs": "read",
    "/openapi.json": "read",
    "/docs-assets/swagger-ui.css": "read",
    "/push": "write",
    "/write-to-online-store": "write",
    "/materialize": "admin",
    "/materialize-incremental": "admin",
}
READ_PATHS = {"/ready", "/metrics", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css"}


def call(live: LiveServer, path: str, token: str | None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    # An empty object reaches the handler wherever a body is taken, and is refused there: nothing is changed.
    return live.get(path, headers=headers) if path in READ_PATHS else live.post(path, {}, headers=headers)


def test_every_path_but_health_and_the_login_has_a_scope() -> None:
    assert {path for path, policy in POLICIES.items() if policy.scope is None} == {"/health", "/login", "/logout"}
    assert all(str(policy_for(path).scope) == scope for path, scope in SCOPES.items())


def test_every_route_is_in_the_policy_table() -> None:
    from server.routes import api, historical, login, materialize, online, operations, pages, push

    for module in (api, historical, login, materialize, online, operations, pages, push):
        for route in module.router.routes:
            assert policy_for(route.path.replace("{name}", "x")) is not None, route.path


@pytest.mark.parametrize("path", sorted(SCOPES))
def test_without_a_token_or_with_a_wrong_one_the_answer_is_401(guarded: LiveServer, path: str) -> None:
    for token in (None, "wrong", TOKENS["read"] + "x", TOKENS["read"][:-1]):
        answer = call(guarded, path, token)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "token" in answer.json()["detail"]


@pytest.mark.parametrize("path", sorted(SCOPES))
@pytest.mark.parametrize("scope", sorted(TOKENS))
def test_a_token_opens_the_paths_of_its_scope_and_no_other(guarded: LiveServer, path: str, scope: str) -> None:
    answer = call(guarded, path, TOKENS[scope])
    if SCOPES[path] == scope:
        assert answer.status_code in {200, 422}, answer.text
    else:
        assert answer.status_code == 403
        assert f"has the scopes ['{scope}'], and {path} needs '{SCOPES[path]}'" in answer.json()["detail"]
        assert f'scope="{SCOPES[path]}"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("value", ["", "Bearer", "Basic {}", "{}", "Bearer {} x"])
def test_a_token_in_another_form_is_no_token(guarded: LiveServer, value: str) -> None:
    answer = guarded.get("/ready", headers={"Authorization": value.format(TOKENS["read"])})
    assert answer.status_code == 401


def test_health_needs_no_token(guarded: LiveServer) -> None:
    assert guarded.get("/health").json() == {"status": "alive"}


@pytest.mark.parametrize(
    "path", ["/materialize%0A", "/materialize/", "//materialize", "/MATERIALIZE", "/x/../materialize"]
)
def test_no_other_spelling_of_a_path_gets_past_its_scope(guarded: LiveServer, path: str) -> None:
    answer = raw(guarded, f"POST {path} HTTP/1.1", f"Authorization: Bearer {TOKENS['read']}")
    assert " 404 " in answer.splitlines()[0] or " 403 " in answer.splitlines()[0], answer


def test_an_unknown_path_is_404_only_for_those_who_may_ask(guarded: LiveServer) -> None:
    assert guarded.get("/nothing").status_code == 401
    answer = guarded.get("/nothing", headers={"Authorization": f"Bearer {TOKENS['read']}"})
    assert answer.status_code == 404
    assert "/nothing" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]", "[::1]:6566", "localhost."])
def test_hosts_of_this_machine_are_served(server: LiveServer, host: str) -> None:
    assert server.get("/ready", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "0.0.0.0",
        "[::1].evil.example",
        "[::1]x",
        "x[::1]",
        "[[::1]]",
        "localhost:evil.example",
        "localhost:80:80",
        "::1",
        "x" * 10_000,
    ],
)
def test_a_foreign_host_is_refused(server: LiveServer, host: str) -> None:
    for path in ("/health", "/ready", "/nothing"):
        answer = server.get(path, headers={"Host": host})
        assert answer.status_code == 400
        assert "LARDER_ALLOWED_HOSTS" in answer.json()["detail"]
        assert len(answer.json()["detail"]) < 1_000


def test_two_host_headers_are_refused(server: LiveServer) -> None:
    assert " 400 " in raw(server, "GET /health HTTP/1.1", "Host: localhost", "Host: evil.example").splitlines()[0]


def test_a_listed_host_is_served(guarded: LiveServer) -> None:
    assert guarded.get("/health", headers={"Host": "features.example.org:443"}).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/vnd.apache.arrow.stream",
        "application/json; charset=latin-1",
    ],
)
def test_another_content_type_is_refused(server: LiveServer, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = server.post("/get-online-features", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_a_compressed_body_is_refused(server: LiveServer) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert server.post("/get-online-features", content=b"{}", headers=headers).status_code == 415


def test_json_may_name_its_character_set(server: LiveServer) -> None:
    headers = {"Content-Type": 'Application/JSON; charset="UTF-8"'}
    answer = server.post("/get-online-features", content=json.dumps(LOOKUP).encode(), headers=headers)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        ("/get-online-features", "full_feature_names=true", "full_feature_names"),
        ("/materialize", "async=true&asink=true", "asink"),
        ("/push", "to=online&", "'to'"),
        ("/ready", "verbose", "verbose"),
        ("/get-historical-features", "feature=a:b", "feature"),
    ],
)
def test_an_unknown_query_parameter_is_refused_by_name(server: LiveServer, path: str, query: str, named: str) -> None:
    answer = server.get(f"{path}?{query}") if path in READ_PATHS else server.post(f"{path}?{query}", {})
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_bodies_that_a_worker_holds_at_once_are_bounded() -> None:
    held = asyncio.run(_hold_bodies())
    assert held["first"] == held["after"] == "taken"
    assert held["beyond"] == "503 Retry-After 5"
    assert held["left"] == 0


async def _hold_bodies() -> dict[str, Any]:
    """Holds as much as the bound allows in requests under way, then sends one byte more."""
    finish = asyncio.Event()
    holding = asyncio.Event()
    half = BODIES_BYTES_MAX // PUSH_BODY_BYTES_MAX

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        guard.running += 1
        if guard.running == half:
            holding.set()
        await finish.wait()

    guard = BodyGuard(handler)
    guard.running = 0  # type: ignore[attr-defined]
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/push", "headers": headers}

    async def sent(size: int) -> str:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": bytes(size), "more_body": False}

        try:
            await guard(scope, receive, None)  # type: ignore[arg-type]
        except HTTPException as refusal:
            return f"{refusal.status_code} Retry-After {dict(refusal.headers or {}).get('Retry-After')}"
        return "taken"

    under_way = [asyncio.create_task(sent(PUSH_BODY_BYTES_MAX)) for _ in range(half)]
    await holding.wait()
    beyond = await sent(1)
    finish.set()
    results = await asyncio.gather(*under_way)
    return {"first": results[0], "beyond": beyond, "after": await sent(1), "left": guard.held_bytes["/push"]}


def test_no_answer_invites_other_origins(server: LiveServer) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        server.request("OPTIONS", "/get-online-features", headers=headers),
        server.post("/get-online-features", LOOKUP, headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("method", "path"), [("GET", "/push"), ("DELETE", "/health"), ("PUT", "/get-online-features")])
def test_another_method_is_405_and_names_the_right_one(server: LiveServer, method: str, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = server.request(method, path, headers=headers, content=b"{}")
    assert answer.status_code == 405
    assert answer.headers["allow"] in answer.json()["detail"]


def raw(live: LiveServer, request_line: str, *headers: str) -> str:
    """Sends a request as it is written here, without a client that would tidy it up."""
    host, _, port = live.url.removeprefix("http://").partition(":")
    lines = [request_line, *headers]
    if not any(header.startswith("Host:") for header in headers):
        lines.append("Host: localhost")
    lines += ["Connection: close", "Content-Type: application/json", "Content-Length: 2", "", "{}"]
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        return b"".join(iter(lambda: connection.recv(65_536), b"")).decode()
