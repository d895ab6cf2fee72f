"""Who works on which partition or feed of the stream: leases with a token, and the workers that live."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from store.kernel import keys
from store.online.conversations import Conversation, script


class Owner(NamedTuple):
    """The holder of a lease, by the token that tells it from those before it: a number and the worker's name."""

    token: str

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.token.partition(":")[2]


def own(project: str, task: str, worker: str, lease_ms: int) -> Conversation[Owner | None]:
    """Takes the lease on a task; None where somebody holds it."""
    _, digest = script("log_own")
    (token,) = yield [("EVALSHA", digest, 2, keys.owner_key(project, task), _state(project, task), worker, lease_ms)]
    return Owner(token.decode()) if token else None


def keep(project: str, task: str, owner: Owner, lease_ms: int) -> Conversation[bool]:
    """Renews a lease, or gives it back for 0 ms; whether it was still held."""
    _, digest = script("log_keep")
    (is_held,) = yield [("EVALSHA", digest, 1, keys.owner_key(project, task), owner.token, lease_ms)]
    return bool(is_held)


def owners(project: str, tasks: Sequence[str]) -> Conversation[dict[str, Owner | None]]:
    """Returns who holds the lease on each of some tasks, None where nobody does."""
    replies = yield [("GET", keys.owner_key(project, task)) for task in tasks]
    return {task: None if held is None else Owner(held.decode()) for task, held in zip(tasks, replies, strict=True)}


def show_alive(project: str, worker: str, lease_ms: int) -> Conversation[list[str]]:
    """Tells that a worker lives for a while from now on, and returns all that live."""
    key = keys.workers_key(project)
    *_, names = yield [
        ("SET", keys.worker_key(project, worker), 1, "PX", lease_ms),
        ("SADD", key, worker),
        ("SMEMBERS", key),
    ]
    return (yield from _living(project, names))


def living(project: str) -> Conversation[list[str]]:
    """Returns the workers that live."""
    (names,) = yield [("SMEMBERS", keys.workers_key(project))]
    return (yield from _living(project, names))


def _living(project: str, names: Iterable[bytes]) -> Conversation[list[str]]:
    told = sorted(name.decode() for name in names)
    if not told:
        return []
    replies = yield [("EXISTS", keys.worker_key(project, name)) for name in told]
    gone = [name for name, lives in zip(told, replies, strict=True) if not lives]
    if gone:
        yield [("SREM", keys.workers_key(project), *gone)]
    return [name for name in told if name not in gone]


def leave(project: str, worker: str) -> Conversation[None]:
    """Takes a worker off the list of those that live."""
    yield [("SREM", keys.workers_key(project), worker), ("DEL", keys.worker_key(project, worker))]


def _state(project: str, task: str) -> bytes:
    """Returns the hash that holds a task's token: a partition's state, or one beside a feed's lease."""
    if task.isdigit():
        return keys.partition_state_key(project, int(task))
    return keys.feed_state_key(project, task)
