"""What worker and page process say to each other: one request down, one answer up, each in pieces that fit a socket.

The pieces are those of `server.retrieval.messages`: chunks, then an end.
"""

from collections.abc import Mapping
from typing import Any

import msgspec


class PageRequest(msgspec.Struct, frozen=True):
    """One page, or one answer of the JSON API, that is asked for.

    Attributes:
        page: which one, by its path without the slash in front; of JSON, with `api/` in front.
        query: parameters, each once.
        base_url: as the caller reaches this server, for code to copy.
        user: the name of the token that the person logged in with, '' where there are no tokens.
        now_us: the store's time, in microseconds since the epoch.
        facts: what only the worker knows: how it stands, how fresh views are, what a lookup answered; plain values.
    """

    page: str
    query: Mapping[str, str] = {}
    base_url: str = ""
    user: str = ""
    has_tokens: bool = False
    now_us: int = 0
    facts: Mapping[str, Any] = {}


class PageAnswer(msgspec.Struct, frozen=True):
    """A page: its status and its content; `content_type` tells HTML from JSON."""

    status: int
    content_type: str
    content: bytes
