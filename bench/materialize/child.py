"""Materializations in a process of its own: `python -m bench.materialize.child REPO START END NICENESS`.

Protocol: it says `{"is_ready": true}` once Feast is imported; each line that it gets is a run, answered by its figures
as JSON. It makes the call that `feast materialize` makes.
"""

import json
import os
import sys
import time
from datetime import datetime

from bench.usage import cpu_seconds, give_way, peak_bytes


def main() -> None:
    """Serves one parent until it closes the pipe."""
    repo, start, end, niceness = sys.argv[1:]
    if int(niceness):
        give_way(int(niceness))
    with os.fdopen(os.dup(1), "w") as out:
        # What libraries print is no part of the answer.
        os.dup2(2, 1)
        from feast import FeatureStore

        print(json.dumps({"is_ready": True}), file=out, flush=True)
        for _ in sys.stdin:
            store = FeatureStore(repo)
            cpu, started = cpu_seconds(), time.perf_counter()
            store.materialize(datetime.fromisoformat(start), datetime.fromisoformat(end))
            seconds = time.perf_counter() - started
            told = {"seconds": seconds, "cpu_s": cpu_seconds() - cpu, "peak_bytes": peak_bytes()}
            print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
