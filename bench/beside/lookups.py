"""A client that looks up one key and all features, at fixed instants."""

import http.client
import json
import time
from collections.abc import Callable

import numpy as np

from bench.beside.repo import Sizes, references


class Lookups:
    """One connection; a lookup that is late because the one before was slow is late."""

    def __init__(self, port: int, sizes: Sizes, rate: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._interval = 1 / rate
        self._keys = np.random.default_rng(7).integers(0, sizes.keys, 100_000)
        self._asked = 0

    def run(self, goes_on: Callable[[float], bool]) -> list[float]:
        """Returns the latency of each lookup in milliseconds, counted from the instant at which it was due.

        Args:
            goes_on: whether there is to be another lookup, due so many seconds after the first.
        """
        # The server hangs up on a connection that was idle while something else was measured.
        self._connection.close()
        self._connection.connect()
        latencies: list[float] = []
        start = time.perf_counter()
        while goes_on(len(latencies) * self._interval):
            due = start + len(latencies) * self._interval
            time.sleep(max(0.0, due - time.perf_counter()))
            self._look_up()
            latencies.append((time.perf_counter() - due) * 1_000)
        return latencies

    def _look_up(self) -> None:
        self._asked += 1
        key = int(self._keys[self._asked % len(self._keys)])
        body = json.dumps({"entities": {"user_id": [key]}, "features": references()})
        self._connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        statuses = {status for column in json.loads(content)["results"] for status in column["statuses"]}
        if answer.status != 200 or statuses != {"PRESENT"}:
            raise RuntimeError(f"lookup of key {key}: status {answer.status}, {statuses}; expected all PRESENT")
