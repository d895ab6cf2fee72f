"""Starts `larder ingest` in forks of a process that has imported all: `warm_worker.py`, repos by lines of stdin.

It answers each line with the process id of the worker, and each worker that ends with nothing.
"""

import os
import signal
import sys
from pathlib import Path

from cli.ingest import run


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            sys.stdin.close()
            os._exit(run(Path(line.strip()), "", None))
        print(child, flush=True)


if __name__ == "__main__":
    main()
