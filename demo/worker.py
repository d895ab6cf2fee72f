"""The stream's worker beside the demo: starting `larder ingest`, and waiting for what it has to do."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from demo.processes import ChildFailed, Children, larder_command, log_tail
from store.online.stream_log import PartitionState, read_states
from store.online.stream_owners import owners
from store.stream.context import StreamContext

START_SECONDS = 120.0
"""How long the worker may take until it owns all partitions: importing Feast is most of it."""
DONE_SECONDS = 60.0
"""How long the worker may take for what is in the log; it does that as it comes."""
_POLL_SECONDS = 0.002


class StreamWorker:
    """A `larder ingest` that has been started, and how far it has come."""

    def __init__(self, children: Children, repo: Path, log: Path) -> None:
        """Starts it.

        Raises:
            OnlineStoreError: Redis cannot serve.
        """
        self._children = children
        self._log = log
        self._process: subprocess.Popen[bytes] = children.start(
            larder_command("ingest", "--repo", str(repo)), log, repo
        )
        self._context = StreamContext(repo)
        self._partitions = range(self._context.log.partitions)

    def stop(self) -> None:
        """Ends the worker, if it has not ended; its log goes."""
        # An open connection would count as a user of the embedded Redis, which then could not be stopped.
        self._context.close()
        self._children.stop(self._process)
        self._log.unlink(missing_ok=True)

    def wait_until_it_owns_all(self) -> None:
        """Waits until every partition of the event log has an owner.

        Raises:
            ChildFailed: the worker ended, or did not come to it in time.
        """
        tasks = [str(partition) for partition in self._partitions]

        def is_owner() -> bool:
            return all(self._context.session.hold(owners(self._context.project, tasks)).values())

        self._wait(is_owner, START_SECONDS)

    def wait_until_applied(self) -> None:
        """Waits until all events that are in the log count online.

        Raises:
            ChildFailed: the worker ended, or did not come to it in time.
        """
        self._wait(lambda: self._is_through(lambda state: state.applied), DONE_SECONDS)

    def wait_until_landed(self) -> None:
        """Waits until all events that are in the log count online, and have landed.

        Raises:
            ChildFailed: the worker ended, or did not come to it in time.
        """
        self._wait(lambda: self._is_through(lambda state: min(state.applied, state.landed)), DONE_SECONDS)

    def _is_through(self, upto: Callable[[PartitionState], int]) -> bool:
        """Whether all partitions are through; twice, as one may pass copies to another that was looked at before it."""
        looks = [self._context.session.hold(read_states(self._context.log, self._partitions)) for _ in range(2)]
        return all(upto(state) >= state.last for look in looks for state in look)

    def _wait(self, is_over: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not is_over():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ChildFailed(
                    f"`larder ingest` ended, or took over {seconds:g} s; it printed:\n{log_tail(self._log)}"
                )
            time.sleep(_POLL_SECONDS)
