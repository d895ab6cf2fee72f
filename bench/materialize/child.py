"""One materialization in a process of its own: `python -m bench.materialize.child REPO START END` prints its figures.

It makes the call that `feast materialize` makes. What Feast takes to be imported is no part of the time.
"""

import json
import os
import sys
import time
from datetime import datetime

from bench.usage import cpu_seconds, peak_bytes


def main() -> None:
    """Materializes all views of a repo, and prints what it took as one line of JSON."""
    repo, start, end = sys.argv[1:]
    with os.fdopen(os.dup(1), "w") as out:
        # What libraries print is no part of the answer.
        os.dup2(2, 1)
        from feast import FeatureStore

        store = FeatureStore(repo)
        cpu, started = cpu_seconds(), time.perf_counter()
        store.materialize(datetime.fromisoformat(start), datetime.fromisoformat(end))
        seconds = time.perf_counter() - started
        told = {"seconds": seconds, "cpu_s": cpu_seconds() - cpu, "peak_bytes": peak_bytes()}
        print(json.dumps(told), file=out, flush=True)


if __name__ == "__main__":
    main()
