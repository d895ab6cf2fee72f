"""The newest event time of what Redis serves of each view, read for many views at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from store.kernel import keys
from store.limits import FRESHNESS_VIEWS_AT_ONCE
from store.online.conversations import Conversation, Generations
from store.online.windows import WindowState


class ServedView(NamedTuple):
    """A view by the name under which its rows are stored; `fingerprint` is its definition's, "" if not windowed."""

    stored_name: str
    fingerprint: str = ""


def read_newest(project: str, views: Sequence[ServedView]) -> Conversation[list[int | None]]:
    """Returns the newest event time of what is served of each view; None where none is known to have been stored.

    Units: microseconds since the epoch.
    """
    newest: list[int | None] = []
    for start in range(0, len(views), FRESHNESS_VIEWS_AT_ONCE):
        some = views[start : start + FRESHNESS_VIEWS_AT_ONCE]
        asked = [field for view in some for field in _state_fields(view.stored_name)]
        (states,) = yield [("HMGET", keys.views_key(project), *asked)]
        members = [_members(view, states[2 * i : 2 * i + 2]) for i, view in enumerate(some)]
        (scores,) = yield [
            ("ZMSCORE", keys.newest_key(project), *(member for of_view in members for member in of_view))
        ]
        noted = iter(scores)
        newest += [_newest([next(noted) for _ in of_view]) for of_view in members]
    return newest


def _state_fields(stored_name: str) -> tuple[bytes, bytes]:
    return keys.generation_field(stored_name), keys.state_field(stored_name)


def _members(view: ServedView, state: Sequence[bytes | None]) -> list[bytes]:
    """Returns the names under which the newest events of what is served of a view are kept."""
    if not view.fingerprint:
        return [keys.row_field(view.stored_name, Generations.parse(state[0]).active)]
    in_force = WindowState.parse(state)
    return [
        keys.row_field(view.stored_name, in_force.generation),
        keys.stream_member(view.stored_name, in_force.fingerprint or view.fingerprint),
    ]


def _newest(scores: Sequence[Any]) -> int | None:
    return max((int(float(score)) for score in scores if score is not None), default=None)
