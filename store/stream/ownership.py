"""Which partitions and feeds a worker owns: leases that a thread renews, and the share that falls to each worker.

Every worker sees the same list of those that live and reckons from it, without a word between them, which tasks are its
own. It gives back what fell to another one, and takes what fell to it once the lease on it is free. Where two believe
to own a partition for a moment, its state takes the word of the later one only.
"""

import secrets
import socket
import threading
import time
from collections.abc import Sequence

import structlog

from store.errors import OnlineStoreError
from store.kernel.log_entries import assigned
from store.limits import OWNER_SECONDS, STALL_SECONDS_MAX
from store.online.stream_owners import Owner, keep, leave, own, show_alive
from store.stream.context import StreamContext

LEASE_MS = int(OWNER_SECONDS * 1_000)
_TRY_SECONDS = 0.2
"""Between two attempts to take what another worker holds that has ended or is about to give it back."""

_log = structlog.get_logger("larder.ingest")


def worker_name(only: Sequence[int] | None = None) -> str:
    """Returns a name that no other worker has; it says to which partitions the worker restricts itself."""
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    return name if only is None else f"{name}|{','.join(map(str, sorted(only)))}"


class Renewal:
    """Renews the leases that a worker holds, in a thread of its own.

    Attributes:
        owned: by task the lease.
    """

    def __init__(self, context: StreamContext, worker: str) -> None:
        self.worker = worker
        self.owned: dict[str, Owner] = {}
        self._context = context
        self._session = context.another_session()
        self._lost: set[str] = set()
        self._turned = time.monotonic()
        self._is_due = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="leases", daemon=True)

    def start(self) -> None:
        """Begins to renew."""
        self._thread.start()

    def take_lost(self) -> set[str]:
        """Returns the tasks whose leases were lost since the last call; it tells too that the worker goes round."""
        self._turned = time.monotonic()
        lost, self._lost = self._lost, set()
        return {task for task in lost if self.owned.pop(task, None) is not None}

    def release(self, task: str) -> None:
        """Gives a task back, so that another worker can take it at once."""
        owner = self.owned.pop(task, None)
        if owner is not None:
            self._context.session.hold(keep(self._context.project, task, owner, 0))

    def close(self) -> None:
        """Gives everything back."""
        self._ended.set()
        self._is_due.set()
        self._thread.join()
        for task in list(self.owned):
            self.release(task)
        self._session.close()

    def _renew_for_ever(self) -> None:
        while not self._ended.is_set():
            self._is_due.wait(OWNER_SECONDS / 3)
            self._is_due.clear()
            if self._ended.is_set():
                return
            if time.monotonic() - self._turned > STALL_SECONDS_MAX:
                # Whatever holds it, another worker shall go on meanwhile.
                continue
            try:
                self._beat()
            except OnlineStoreError as error:
                _log.warning("leases cannot be renewed", error=str(error))

    def _beat(self) -> None:
        for task, owner in list(self.owned.items()):
            if not self._session.hold(keep(self._context.project, task, owner, LEASE_MS)):
                self._lost.add(task)


class Ownership(Renewal):
    """The tasks that a worker owns, and those that fall to it among all workers."""

    def __init__(self, context: StreamContext, worker: str) -> None:
        super().__init__(context, worker)
        self._tasks: tuple[str, ...] = ()
        self._wanted: frozenset[str] = frozenset()
        self._try_at = 0.0

    def start(self) -> None:
        """Tells that the worker lives, and begins to renew what it will own."""
        self._beat()
        super().start()

    def turn(self, tasks: Sequence[str]) -> tuple[list[str], list[str]]:
        """Takes what is free and falls to this worker; called at every turn of its work.

        Args:
            tasks: all that there are.

        Returns:
            Tasks that are lost or have to be given back with `release`, and tasks that were taken.
        """
        if tuple(tasks) != self._tasks:
            self._tasks = tuple(tasks)
            self._is_due.set()
        ended = [*self.take_lost(), *(task for task in self.owned if task not in self._wanted)]
        taken = []
        missing = sorted(self._wanted - self.owned.keys()) if time.monotonic() >= self._try_at else []
        self._try_at = time.monotonic() + _TRY_SECONDS if missing else self._try_at
        for task in missing:
            owner = self._context.session.hold(own(self._context.project, task, self.worker, LEASE_MS))
            if owner is not None:
                self.owned[task] = owner
                taken.append(task)
        return ended, taken

    def close(self) -> None:
        """Gives everything back and tells that the worker is gone."""
        super().close()
        self._context.session.hold(leave(self._context.project, self.worker))

    def _beat(self) -> None:
        living = self._session.hold(show_alive(self._context.project, self.worker, LEASE_MS))
        super()._beat()
        self._wanted = assigned(self.worker, living, self._tasks)
