"""Workers as processes: started quickly, killed, frozen, and looked after."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from store.kernel.keys import owner_key, worker_key, workers_key
from tests.redis_servers import RedisServer, poll_until
from tests.stores import PROJECT
from tests.stream.shop import NOW


class WarmWorkers:
    """Starts workers as processes, which takes milliseconds: their parent has imported all they need."""

    def __init__(self, folder: Path) -> None:
        self._ended = folder / "ended"
        with (folder / "workers.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("warm_worker.py")), str(self._ended)],
                env=os.environ | {"LARDER_CLOCK": NOW.isoformat(), "PYTHONWARNINGS": "ignore"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self, repo: Path, partitions: str = "", metrics_port: int | None = None) -> int:
        """Starts a worker and returns its process id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(repo), partitions, metrics_port]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self, worker: int, how: signal.Signals) -> int:
        """Ends a worker, waits until it is gone, and returns its exit status."""
        os.kill(worker, how)
        poll_until(lambda: self._status(worker) is not None, what="the worker is gone")
        status = self._status(worker)
        assert status is not None
        return status

    def _status(self, worker: int) -> int | None:
        lines = self._ended.read_text().splitlines() if self._ended.exists() else []
        return next((int(status) for name, status in map(str.split, lines) if int(name) == worker), None)

    def close(self) -> None:
        """Ends the process that starts them."""
        self._process.communicate()


def lapse_leases(server: RedisServer) -> None:
    """Does what the end of their time would do to the leases of workers that were killed or frozen."""
    client = server.client()
    names = [name.decode() for name in client.smembers(workers_key(PROJECT))]
    tasks = [*map(str, range(8)), "inbox:clicks"]
    client.delete(*(owner_key(PROJECT, task) for task in tasks), *(worker_key(PROJECT, name) for name in names))
