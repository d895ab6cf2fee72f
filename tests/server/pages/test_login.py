"""Logging in with a token: what the cookie opens, and what it never does."""

import re

import httpx
import pytest

from server.sessions import COOKIE
from tests.server.conftest import TOKENS
from tests.server.live import LiveServer

OURS = {"Sec-Fetch-Site": "same-origin"}


def log_in(closed: LiveServer, token: str, next_path: str = "") -> httpx.Response:
    answer = closed.post("/login", data={"token": token, "next": next_path}, headers=OURS)
    # The client of the tests is a browser that remembers, and each request here says by itself who it is.
    closed.client.cookies.clear()
    return answer


@pytest.fixture(scope="module")
def cookie(closed: LiveServer) -> dict[str, str]:
    """The headers of a browser that has logged in."""
    answer = log_in(closed, TOKENS["read"])
    value = re.match(rf"{COOKIE}=([^;]+);", answer.headers["set-cookie"])[1]
    return {"Cookie": f"{COOKIE}={value}"}


def test_a_page_sends_who_has_not_logged_in_to_the_login_and_back(closed: LiveServer) -> None:
    answer = closed.get("/view?name=a%20%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fview%3Fname%3Da%2520%2526b"
    assert answer.headers["cache-control"] == "no-store"
    page = closed.get(answer.headers["location"])
    assert page.status_code == 200
    assert 'value="/view?name=a%20%26b"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_a_login_is_a_cookie_that_scripts_and_other_sites_do_not_get(closed: LiveServer) -> None:
    answer = log_in(closed, TOKENS["read"], "/view?name=spending")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/view?name=spending"
    attributes = {each.strip().lower() for each in answer.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= attributes
    assert TOKENS["read"] not in answer.headers["set-cookie"]


def test_behind_tls_the_cookie_stays_there(closed: LiveServer) -> None:
    headers = {**OURS, "X-Forwarded-Proto": "https"}
    answer = closed.post("/login", data={"token": TOKENS["read"], "next": ""}, headers=headers)
    closed.client.cookies.clear()
    assert "secure" in answer.headers["set-cookie"].lower()


def test_the_cookie_opens_pages_and_their_reads(closed: LiveServer, cookie: dict[str, str]) -> None:
    page = closed.get("/view?name=spending", headers=cookie)
    assert page.status_code == 200
    assert "Log out" in page.text
    assert ">read<" in page.text, "the name of the token is told"
    assert "LARDER_TOKEN" in page.text
    for path in ("/api/catalogue", "/api/freshness", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css"):
        assert closed.get(path, headers=cookie).status_code == 200, path
    form = {"service": "", "features": "spending:total", "key.customer_id": "1"}
    assert closed.post("/lookup", data=form, headers=cookie | OURS).status_code == 200
    assert closed.post("/lookup", data=form, headers=cookie).status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/get-online-features"),
        ("POST", "/get-historical-features"),
        ("POST", "/push"),
        ("POST", "/write-to-online-store"),
        ("POST", "/materialize"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("POST", "/api/catalogue"),
    ],
)
def test_the_cookie_opens_nothing_of_the_api(
    closed: LiveServer, cookie: dict[str, str], method: str, path: str
) -> None:
    answer = closed.request(method, path, headers=cookie | OURS, **({"json": {}} if method == "POST" else {}))
    assert answer.status_code == 401


def test_a_bearer_token_opens_pages_too(closed: LiveServer) -> None:
    headers = {"Authorization": f"Bearer {TOKENS['read']}"}
    assert closed.get("/lineage", headers=headers).status_code == 200
    assert closed.get("/lineage", headers={"Authorization": f"Bearer {TOKENS['write']}"}).status_code == 403


@pytest.mark.parametrize(
    ("token", "status", "told"),
    [
        ("wrong", 401, "not one of this server"),
        ("", 401, "not one of"),
        (TOKENS["write"], 403, "may write and not read"),
    ],
)
def test_a_token_that_does_not_do_is_told(closed: LiveServer, token: str, status: int, told: str) -> None:
    answer = log_in(closed, token, "/lineage")
    assert answer.status_code == status
    assert told in answer.text
    assert 'value="/lineage"' in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/\nSet-Cookie: a", "x"]
)
def test_a_login_leads_to_no_other_site(closed: LiveServer, path: str) -> None:
    assert log_in(closed, TOKENS["read"], path).headers["location"] == "/"
    assert 'name="next" value="/"' in closed.get("/login", params={"next": path}).text


def test_another_site_can_neither_log_in_nor_out(closed: LiveServer, cookie: dict[str, str]) -> None:
    for path, data in (("/login", {"token": TOKENS["read"]}), ("/logout", {})):
        answer = closed.post(path, data=data, headers={"Sec-Fetch-Site": "cross-site", **cookie})
        assert answer.status_code in {403, 415}
        assert "set-cookie" not in answer.headers


def test_logging_out_forgets_the_cookie(closed: LiveServer, cookie: dict[str, str]) -> None:
    answer = closed.post(
        "/logout", content=b"", headers={**OURS, **cookie, "Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 303
    assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_a_forged_or_doubled_cookie_is_no_login(closed: LiveServer, cookie: dict[str, str]) -> None:
    value = cookie["Cookie"]
    for forged in (value[:-2] + ("AA" if not value.endswith("AA") else "BB"), f"{value}; {value}", f"{COOKIE}=1.2.3.4"):
        assert closed.get("/lineage", headers={"Cookie": forged}).status_code == 303


def test_the_style_sheet_needs_no_login_and_unknown_paths_do(closed: LiveServer) -> None:
    assert closed.get("/static/larder.css").status_code == 200
    assert closed.get("/nothing").status_code == 401


def test_without_tokens_there_is_nothing_to_log_in_to(pages: LiveServer) -> None:
    assert pages.get("/login").headers["location"] == "/"
    assert log_in(pages, "x").headers["location"] == "/"
