"""The warm process: loads Feast once, then forks a child for each order and sees it to its end.

It has one thread and opens no database, so that forking it is safe.
"""

import contextlib
import ctypes
import gc
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from server.limits import RETRIEVAL_NICENESS, RETRIEVAL_OOM_SCORE
from server.logs import configure_logs
from server.retrieval.messages import FOLLOWED_DESCRIPTORS, MESSAGE_BYTES_MAX, Death, Kind, PagesOrder, Task, say
from server.retrieval.places import Places, clear_if_held
from store.limits import HISTORICAL_CONCURRENT_MAX

READY = b"ready"
_PR_SET_PDEATHSIG = 1
# The second is Feast's own name for it.
_METRICS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


class Zygote:
    """Forks children and kills those whose answer nobody waits for."""

    def __init__(self, control: socket.socket, work: Callable[[Task], None]) -> None:
        self._control = control
        self._work = work
        self._running: dict[int, Task] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        # A child that ends makes this readable; the handler itself has nothing to do.
        self._wake, wake_writer = socket.socketpair()
        self._wake_writer = wake_writer
        for end in (self._wake, wake_writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer.fileno())
        self._poll.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        """Takes orders until the worker is gone; then kills what is still running, and cleans up after it."""
        try:
            self._control.send(READY)
        except ConnectionError:
            return
        is_serving = True
        while is_serving:
            ready = {descriptor for descriptor, _ in self._poll.poll()}
            # Orders come last: a descriptor that is closed before them may be given to what comes with one.
            for child, task in self._running.items():
                if task.answer.fileno() in ready:
                    self._poll.unregister(task.answer)
                    os.kill(child, signal.SIGKILL)
            if self._wake.fileno() in ready:
                self._wake.recv(MESSAGE_BYTES_MAX)
                self._reap(os.WNOHANG)
            if self._control.fileno() in ready:
                is_serving = self._take_order()
        for child in self._running:
            os.kill(child, signal.SIGKILL)
        while self._running:
            self._reap(0)

    def _take_order(self) -> bool:
        """Forks a child for the next order; returns False if there will be none, as the worker is gone."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, FOLLOWED_DESCRIPTORS)
        except ConnectionError:
            # So ends a worker that was killed before it had read all that was said to it.
            return False
        if not message:
            return False
        task = Task.of(message, descriptors)
        parent = os.getpid()
        child = os.fork()
        if not child:
            self._become_child(task, parent)
        self._running[child] = task
        # Only the end of the connection is asked for, which poll always tells.
        self._poll.register(task.answer, 0)
        return True

    def _become_child(self, task: Task, parent: int) -> None:
        exit_code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(exit_code)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # The kernel takes the priority of reading and writing files from the niceness as well.
            os.nice(RETRIEVAL_NICENESS)
            with contextlib.suppress(OSError):
                Path("/proc/self/oom_score_adj").write_text(str(RETRIEVAL_OOM_SCORE))
            # Another retrieval's place or socket must not stay open because this child has a copy.
            for other in self._running.values():
                other.close()
            for end in (self._control, self._wake, self._wake_writer):
                end.close()
            self._work(task)
            exit_code = 0
        except BaseException:  # noqa: BLE001 - the edge of a process: the log is all that is left to tell
            traceback.print_exc()
        finally:
            # Never back into the zygote's loop, nor through handlers that belong to it.
            sys.stderr.flush()
            os._exit(exit_code)

    def _reap(self, options: int) -> None:
        while self._running:
            try:
                child, status = os.waitpid(-1, options)
            except ChildProcessError:
                return
            if not child:
                return
            self._bury(self._running.pop(child), status)

    def _bury(self, task: Task, status: int) -> None:
        if status:
            # One that ended by itself has given its place back; to hold that again, if only to look, would keep
            # the next retrieval from it.
            if task.place is not None:
                clear_if_held(task.place)
            code = os.waitstatus_to_exitcode(status)
            death = Death(signal=max(-code, 0), exit_code=max(code, 0))
            task.answer.setblocking(False)
            # A worker that reads nothing has its buffer full, and one that is gone reads nothing.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                say(task.answer, Kind.DIED, msgspec.json.encode(death))
        with contextlib.suppress(KeyError):
            self._poll.unregister(task.answer)
        task.close()


def _keep_feasts_metrics_in_memory() -> None:
    """Keeps Feast from writing the metrics of its own server, which never runs here, to files beside the worker's."""
    for name in _METRICS_VARIABLES:
        os.environ.pop(name, None)
    # It decides when it is imported.
    import prometheus_client

    assert prometheus_client.__name__
    os.environ.update(dict.fromkeys(_METRICS_VARIABLES, tempfile.gettempdir()))


def _lower_the_group() -> None:
    """Leaves the worker's session, and asks less for the new one.

    Linux shares cores among sessions first, and niceness counts within one only (man 7 sched, "autogroup"): what
    children take would otherwise be taken from the worker.
    """
    os.setsid()
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(RETRIEVAL_NICENESS))


def main(control_descriptor: str, repo_path: str, places_folder: str) -> None:
    """Runs a zygote for the worker at the other end of a socket."""
    # Whoever stops the server stops its workers, and a zygote goes with its worker.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=int(control_descriptor))
    configure_logs()
    _keep_feasts_metrics_in_memory()
    from server.retrieval.work import Workshop

    workshop = Workshop(Path(repo_path))
    Places(Path(places_folder), HISTORICAL_CONCURRENT_MAX).sweep()
    _lower_the_group()
    # The collector would touch, and so copy, every page that children share.
    gc.collect()
    gc.freeze()

    def work(task: Task) -> None:
        if isinstance(task.order, PagesOrder):
            # Nobody who asks for no page pays for what makes them.
            from server.pages.process import serve

            serve(task.answer, Path(repo_path))
        else:
            workshop.work(task)

    Zygote(control, work).serve()
    # What is frozen is not collected at exit, and DuckDB's binding would report it as leaked.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
