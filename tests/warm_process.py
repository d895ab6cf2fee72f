"""The `feast` and `larder` commands without seconds of importing: a process that has imported both, and forks.

Its one argument is the descriptor of a socket; `tests/warm.py` is at the other end. Each message there is an order, and
carries the descriptors that become the standard output and the standard error of a command, and one on which is told
its process id and, when it has ended, how (minus the signal, if by one).
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
from typing import Any

MESSAGE_BYTES_MAX = 1_000_000
NUMBER_BYTES = 4
PROGRAMS = {"larder": ("cli.main", "main"), "feast": ("feast.cli.cli", "cli")}

# Larder's metrics come first, as in its server: metrics that Feast's own server has imported are kept in files.
MODULES = ("server.app", "server.run", "cli.main", "feast.cli.cli", "store.feature_store", "store.engine",
           "store.offline", "store.online", "store.registry")  # fmt: skip


def told(number: int) -> bytes:
    """Returns a number as it is told to whoever gave the order."""
    return number.to_bytes(NUMBER_BYTES, "little", signed=True)


def become(order: dict[str, Any], descriptors: list[int]) -> None:
    """Makes this fork what a process of its own would be at the start of a command."""
    for number, descriptor in enumerate(descriptors[:2], start=1):
        os.dup2(descriptor, number)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    # It is found once, and the command may have another.
    tempfile.tempdir = None
    sys.argv = [order["program"], *order["arguments"]]


def run(program: str) -> None:
    """Runs a command as its own script does."""
    module, function = PROGRAMS[program]
    sys.exit(getattr(importlib.import_module(module), function)())


def bury(running: dict[int, int]) -> None:
    """Tells how the forks that have ended did so, and forgets them."""
    for child, descriptor in [*running.items()]:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            # Who gave the order may have stopped listening.
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, told(os.waitstatus_to_exitcode(status)))
            os.close(descriptor)
            del running[child]


def main(control: socket.socket) -> str:
    """Forks for each order; returns the program to run in a fork, and nothing when there are no more orders."""
    wake, wake_writer = socket.socketpair()
    for end in (wake, wake_writer):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_writer.fileno())
    # ^C is for whoever gives the orders.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            wake.recv(MESSAGE_BYTES_MAX)
            bury(running)
        if control in ready:
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES_MAX, 3)
            if not message:
                for child in running:
                    os.kill(child, signal.SIGKILL)
                return ""
            order = json.loads(message)
            if not (child := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                become(order, descriptors)
                for descriptor in (*descriptors, *running.values()):
                    os.close(descriptor)
                for end in (control, wake, wake_writer):
                    end.close()
                return str(order["program"])
            running[child] = descriptors.pop()
            os.write(running[child], told(child))
            for descriptor in descriptors:
                os.close(descriptor)


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    if chosen := main(socket.socket(fileno=int(sys.argv[1]))):
        run(chosen)
