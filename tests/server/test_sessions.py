import hashlib

import pytest

from server.auth import Scope, TokenEntry, TokenTable
from server.limits import LOGIN_SECONDS
from server.sessions import COOKIE, cookie_of, find_login, new_cookie

NOW = 1_700_000_000.5


def entry(secret: str, *scopes: Scope) -> TokenEntry:
    return TokenEntry(secret, hashlib.sha256(secret.encode()).digest(), frozenset(scopes or {Scope.READ}))


ALICE, BOB = entry("alice"), entry("bob", Scope.READ, Scope.ADMIN)
TABLE = TokenTable((ALICE, BOB))


@pytest.mark.parametrize("who", [ALICE, BOB], ids=["alice", "bob"])
def test_a_cookie_stands_for_the_token_that_it_was_made_for(who: TokenEntry) -> None:
    assert find_login(TABLE, new_cookie(who, NOW), NOW) == who


def test_any_worker_with_the_same_tokens_knows_a_cookie() -> None:
    assert find_login(TokenTable((BOB, entry("alice"))), new_cookie(ALICE, NOW), NOW) == entry("alice")


def test_a_cookie_holds_until_its_expiry_and_no_longer() -> None:
    cookie = new_cookie(ALICE, NOW)
    assert find_login(TABLE, cookie, int(NOW) + LOGIN_SECONDS - 1) == ALICE
    assert find_login(TABLE, cookie, int(NOW) + LOGIN_SECONDS) is None


def test_a_cookie_ends_with_its_token() -> None:
    assert find_login(TokenTable((BOB,)), new_cookie(ALICE, NOW), NOW) is None


def test_a_token_that_may_not_read_opens_no_page() -> None:
    writer = entry("writer", Scope.WRITE, Scope.ADMIN)
    assert find_login(TokenTable((writer,)), new_cookie(writer, NOW), NOW) is None


def test_no_character_of_a_cookie_can_be_changed() -> None:
    cookie = new_cookie(ALICE, NOW)
    for place, was in enumerate(cookie):
        for becomes in {"0", "1", "9", "A", "-", "."} - {was}:
            forged = cookie[:place] + becomes + cookie[place + 1 :]
            assert find_login(TABLE, forged, NOW) is None, forged


@pytest.mark.parametrize(
    "cookie",
    ["", ".", "...", "1.a.9999999999.b", "1..1.", "2" * 1_000_000, "é" * 50, "1.x.²³.y", "1.a.-5.b", "1.a.1e9.b"],
)
def test_nonsense_is_no_login(cookie: str) -> None:
    assert find_login(TABLE, cookie, NOW) is None


def test_a_cookie_tells_nothing_of_the_token() -> None:
    cookie = new_cookie(ALICE, NOW)
    assert "alice" not in cookie
    assert ALICE.digest.hex() not in cookie


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([f"{COOKIE}=abc".encode()], "abc"),
        ([f"a=b; {COOKIE}=abc; c=d".encode()], "abc"),
        ([b"a=b", f"{COOKIE}=abc".encode()], "abc"),
        ([f"{COOKIE}=abc; {COOKIE}=def".encode()], ""),
        ([f"x{COOKIE}=abc".encode()], ""),
        ([], ""),
        ([b"\xff=\xfe; ;;="], ""),
    ],
)
def test_our_cookie_is_found_if_it_is_alone(headers: list[bytes], expected: str) -> None:
    assert cookie_of(headers) == expected
