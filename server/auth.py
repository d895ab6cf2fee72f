"""Tokens with scopes: who may call what, kept as hashes in the file that `LARDER_TOKENS_FILE` names.

The file is YAML (so also JSON): a list of entries, one a token, like

    - name: scoring-service
      sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      scopes: [read]

`sha256` is the hex digest of the token's UTF-8 bytes. A plain digest is enough because tokens are random
(`larder token` makes them): there is nothing to guess. No scope implies another.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from server.limits import TOKEN_BYTES_MAX, TOKENS_MAX
from store.errors import ConfigError

TOKENS_VARIABLE = "LARDER_TOKENS_FILE"
_FIELDS = {"name", "sha256", "scopes"}
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class Scope(StrEnum):
    """What a token allows: lookups and retrievals, writes, or materialization."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """One token: a name for logs, the digest of the secret, and what it allows."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class TokenTable:
    """All tokens of a server."""

    entries: tuple[TokenEntry, ...]

    def find(self, token: bytes) -> TokenEntry | None:
        """Returns the entry of a token, or None; every entry is compared, so the time tells nothing."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            return None
        digest = hashlib.sha256(token).digest()
        found = None
        for entry in self.entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        return found


def new_token() -> str:
    """Returns a new random token of 256 bits."""
    return secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """Returns what a tokens file keeps of a token: the hex SHA-256 of its UTF-8 bytes."""
    return hashlib.sha256(token.encode()).hexdigest()


def load_tokens(path: Path) -> TokenTable:
    """Returns the tokens of a file.

    Raises:
        ConfigError: the file is missing, not YAML, or an entry is not of the documented form.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{TOKENS_VARIABLE}={str(path)!r}: cannot be read ({error.strerror}); make it readable to the server, "
            "or unset the variable for a server without tokens"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The parser's own message quotes the file, which may hold a token pasted there by mistake.
        raise ConfigError(f"tokens file {str(path)!r} is not valid YAML or JSON; write {_example()}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"tokens file {str(path)!r}: expected a list with at least one entry; write {_example()}")
    if len(content) > TOKENS_MAX:
        raise ConfigError(f"tokens file {str(path)!r}: {len(content)} entries, at most {TOKENS_MAX} are allowed")
    entries = tuple(_entry(path, number, fields) for number, fields in enumerate(content, start=1))
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"tokens file {str(path)!r}: name {twice!r} is given twice; give each token its own")
    return TokenTable(entries)


def _entry(path: Path, number: int, fields: Any) -> TokenEntry:
    where = f"tokens file {str(path)!r}: entry {number}"
    if not isinstance(fields, Mapping) or set(fields) != _FIELDS:
        # Field names are shown, never values: a value may be the token itself.
        got = sorted(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
        raise ConfigError(f"{where}: expected exactly the fields {sorted(_FIELDS)}, got {got}; write {_example()}")
    name, digest, scopes = fields["name"], fields["sha256"], fields["scopes"]
    if not isinstance(name, str) or not name:
        raise ConfigError(f"{where}: name must be a non-empty string, got a {type(name).__name__}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ConfigError(
            f"{where} ({name!r}): sha256 must be 64 hex digits in quotes, the digest of the token and never the token "
            "itself; `larder token` prints both"
        )
    if not isinstance(scopes, list) or not scopes or not set(map(str, scopes)) <= set(Scope):
        raise ConfigError(f"{where} ({name!r}): scopes must be a non-empty list out of {[str(s) for s in Scope]}")
    return TokenEntry(name, bytes.fromhex(digest), frozenset(Scope(scope) for scope in scopes))


def _example() -> str:
    return "entries like {name: scoring-service, sha256: <64 hex digits>, scopes: [read]}"
