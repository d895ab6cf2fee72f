"""Whole views in Redis: their lease, the switch of generations, and dropping, in bounded batches."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from redis.exceptions import LockError

from store.errors import MaterializationBusy
from store.kernel import keys
from store.kernel.codec import BIAS_US
from store.limits import LEASE_SECONDS, PIPELINE_CALLS_MAX, SCAN_COUNT, SCRIPT_ROWS_MAX
from store.online.client import RedisSession
from store.online.commands import Command
from store.online.connection import REDIS_ERRORS, translated
from store.online.conversations import Conversation, chunks, last_generation, script
from store.online.newest import forget_newest, raise_newest

_BATCH_KEYS = SCRIPT_ROWS_MAX * PIPELINE_CALLS_MAX


@contextmanager
def lease(session: RedisSession, project: str, view: str) -> Iterator[None]:
    """Holds the lease on the materialization of one view; a thread renews it until the block ends.

    Raises:
        MaterializationBusy: another run holds it. A killed run's lease lapses after `LEASE_SECONDS`.
    """
    lock: Any = session.client.lock(
        keys.lease_key(project, view), timeout=LEASE_SECONDS, blocking=False, thread_local=False
    )
    with translated(session.target):
        is_held = lock.acquire()
    if not is_held:
        raise MaterializationBusy(
            f"feature view {view!r} is being materialized by another run; wait for it to end "
            f"(the lease of a killed run lapses after {LEASE_SECONDS} s)"
        )
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lock, ended), name=f"lease-{view}", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join()
        # It may have lapsed, or Redis may be gone and it will: then nothing of ours is left to free.
        with suppress(LockError, *REDIS_ERRORS):
            lock.release()


def _renew(lock: Any, ended: threading.Event) -> None:
    while not ended.wait(LEASE_SECONDS / 3):
        try:
            lock.reacquire()
        except LockError:
            # It has lapsed. Whichever run then records its end first wins; the other is refused (`replace_state`).
            return
        except REDIS_ERRORS:
            # Redis is away for a moment; the next turn tries again.
            continue


def carry_pushed(session: RedisSession, project: str, view: str, *, active: int, building: int) -> None:
    """Carries rows that came by push into the generation being built."""
    _, digest = script("carry")
    fields = keys.row_field(view, active), keys.row_field(view, building)
    newest_us: list[int] = []
    for batch in entity_keys(session, project):
        rows = [(key, b"") for key in batch]
        calls: list[Command] = [
            ("EVALSHA", digest, len(chunk), *(key for key, _ in chunk), *fields)
            for chunk in chunks(rows, session.slot_of())
        ]
        newest_us += [(high << 32 | low) - BIAS_US for carried, high, low in session.hold(say(calls)) if carried]
    if newest_us:
        session.hold(say([raise_newest(project, fields[1:], max(newest_us))]))


def drop_generations(session: RedisSession, project: str, view: str, generations: range) -> None:
    """Removes the rows of some generations of a view; entity keys without any row left go with them."""
    fields = [keys.row_field(view, generation) for generation in generations]
    if fields:
        for batch in entity_keys(session, project):
            session.hold(say([("HDEL", key, *fields) for key in batch]))
        _forget(session, project, fields)


def drop_tiles(session: RedisSession, project: str, view: str, generations: range | None = None) -> None:
    """Removes the tiles that materializations of some generations of a view made; None: all its tiles."""
    for batch in _scan(session, keys.entity_keys_pattern(project)):
        found = {key: keys.split_tiles_key(project, key) for key in batch}
        gone = [
            key
            for key, tiles in found.items()
            if tiles is not None and tiles.view == view and (generations is None or tiles.generation in generations)
        ]
        if gone:
            session.hold(say([("UNLINK", key) for key in gone]))
    if generations is not None:
        _forget(session, project, [keys.row_field(view, generation) for generation in generations])


def _forget(session: RedisSession, project: str, members: Sequence[bytes]) -> None:
    """Drops what is noted of the newest events of what was dropped."""
    for start in range(0, len(members), PIPELINE_CALLS_MAX * SCRIPT_ROWS_MAX):
        session.hold(say([forget_newest(project, members[start : start + PIPELINE_CALLS_MAX * SCRIPT_ROWS_MAX])]))


def drop_view(session: RedisSession, project: str, view: str) -> None:
    """Removes all rows and tiles of a view and what is known of it; another view or project loses nothing.

    What is known goes last, so that a killed removal is finished by the next.
    """
    drop_generations(session, project, view, range(1, session.hold(last_generation(project, view)) + 1))
    drop_tiles(session, project, view)
    (noted,) = session.hold(say([("ZRANGE", keys.newest_key(project), 0, -1)]))
    _forget(session, project, [member for member in noted if keys.is_stream_member(member, view)])
    known = (keys.generation_field(view), keys.state_field(view), keys.counter_field(view))
    session.hold(say([("HDEL", keys.views_key(project), *known)]))


def drop_project(session: RedisSession, project: str) -> None:
    """Removes every key of a project."""
    pattern = keys.project_pattern(project)
    for batch in _scan(session, pattern):
        session.hold(say([("UNLINK", key) for key in batch]))


def say(commands: list[Command]) -> Conversation[list[Any]]:
    """Returns the replies to some commands, sent as one batch."""
    replies: list[Any] = yield commands
    return replies


def entity_keys(session: RedisSession, project: str) -> Iterator[list[bytes]]:
    """Yields all entity keys of a project in batches; one may come twice, as SCAN has it."""
    for batch in _scan(session, keys.entity_keys_pattern(project)):
        # Tiles begin with an entity key too.
        if found := [key for key in batch if key.endswith(b"}")]:
            yield found


def keys_of_entities(session: RedisSession, project: str) -> Iterator[list[bytes]]:
    """Yields in batches all keys that hold something of one entity: entity keys, and those of tiles."""
    return _scan(session, keys.entity_keys_pattern(project))


def _scan(session: RedisSession, pattern: bytes) -> Iterator[list[bytes]]:
    found = session.client.scan_iter(match=pattern, count=SCAN_COUNT)
    while True:
        with translated(session.target):
            batch = list(islice(found, _BATCH_KEYS))
        if not batch:
            return
        yield batch
