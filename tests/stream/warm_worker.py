"""Starts `larder ingest` in forks of a process that has imported all: `warm_worker.py`, arguments as JSON by line.

It answers each line (a repo, partitions, a port for metrics or null) with the process id of the worker, and appends the
exit status of each worker that ends to a file.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from cli.ingest import run


def main(ended: Path) -> None:
    for line in sys.stdin:
        repo, partitions, port = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            os._exit(run(Path(repo), partitions, None if port is None else ("127.0.0.1", port)))
        threading.Thread(target=_wait_for, args=(child, ended), daemon=True).start()
        print(child, flush=True)


def _wait_for(child: int, ended: Path) -> None:
    _, status = os.waitpid(child, 0)
    with ended.open("a") as file:
        file.write(f"{child} {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
