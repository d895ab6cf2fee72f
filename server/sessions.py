"""Logins to the pages: a cookie that any worker of any server with the same tokens can check, and that holds no token.

A cookie says which token its owner logged in with, and until when it holds:

    1.<id of the entry>.<expiry, seconds since the epoch>.<HMAC-SHA256 of both>

in unpadded base64 where it is not a number. Id and key come from the digest in the tokens file, so a login ends when
its token is taken out of that file. Whoever can read the file could make such a cookie: it opens the pages and their
reads, and neither writes nor administers. The expiry is by the system's clock: a replayed one ends no login.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from server.auth import Scope, TokenEntry, TokenTable
from server.limits import LOGIN_SECONDS

COOKIE = "larder_pages"
_VERSION = "1"
_ID_BYTES = 12
_COOKIE_CHARS_MAX = 128


def new_cookie(entry: TokenEntry, now_seconds: float) -> str:
    """Returns the cookie of a login that begins now."""
    said = f"{_VERSION}.{_id(entry)}.{int(now_seconds) + LOGIN_SECONDS}"
    return f"{said}.{_signature(entry, said)}"


def find_login(tokens: TokenTable, cookie: str, now_seconds: float) -> TokenEntry | None:
    """Returns the entry that a cookie stands for; None if it was not made here, has expired, or its token is gone.

    All entries are compared, each in constant time.
    """
    if len(cookie) > _COOKIE_CHARS_MAX or not cookie.isascii() or cookie.count(".") != 3:
        return None
    said, _, signature = cookie.rpartition(".")
    version, identity, expiry = said.split(".")
    if version != _VERSION or not expiry.isdecimal() or int(expiry) <= now_seconds:
        return None
    found = None
    for entry in tokens.entries:
        if hmac.compare_digest(_id(entry), identity) and hmac.compare_digest(_signature(entry, said), signature):
            found = entry
    return found if found is not None and Scope.READ in found.scopes else None


def cookie_of(header_values: list[bytes]) -> str:
    """Returns the value of our cookie among `Cookie` headers, '' if it is not there or not alone."""
    pairs = [part.strip().partition(b"=") for value in header_values for part in value.split(b";")]
    values = [value for name, _, value in pairs if name == COOKIE.encode()]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _id(entry: TokenEntry) -> str:
    return _base64(hashlib.sha256(b"larder pages id\0" + entry.digest).digest()[:_ID_BYTES])


def _signature(entry: TokenEntry, said: str) -> str:
    key = hmac.digest(entry.digest, b"larder pages key", "sha256")
    return _base64(hmac.digest(key, said.encode(), "sha256"))


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
