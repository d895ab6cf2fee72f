"""The `feast` command without its four seconds of importing: one process that has imported Feast and forks.

Each line on its standard input is the arguments of one `feast` command, as a JSON list. A fork of it runs the code of
the real command line; its process id is told in one line, and how it ended (minus the signal, if by one) in the next.
"""

import importlib
import json
import os
import sys

from feast.cli.cli import cli

# What a materialization loads besides, so that a fork begins with its work.
for name in ("store.engine", "store.offline", "store.online", "store.registry"):
    importlib.import_module(name)


def run(arguments: list[str]) -> None:
    """Runs one command in this process, and ends it."""
    status = 1
    try:
        cli(arguments, standalone_mode=False)
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Forks a command a line."""
    for line in sys.stdin:
        if not (pid := os.fork()):
            # What a command prints must not stand among what is told here.
            os.dup2(2, 1)
            run(json.loads(line))
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


main()
