"""A feature repo with a view that does what its entity rows say, and ways to watch the process of a retrieval."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pyarrow as pa

from server.retrieval.places import FOLDER_PREFIX, Places
from store.limits import HISTORICAL_CONCURRENT_MAX
from tests.redis_servers import poll_until
from tests.server.live import NOW, LiveServer

ASK = "/get-historical-features"
OBEDIENT = ["driver_stats:rate", "obedient:done"]

# `read <fifo>` waits until somebody opens the other end: a retrieval that lasts as long as a test wants.
DEFINITIONS = """

@on_demand_feature_view(
    sources=[RequestSource(name="orders", schema=[Field(name="order", dtype=String)])],
    schema=[Field(name="done", dtype=String)],
    mode="python",
)
def obedient(inputs):
    import os
    from pathlib import Path

    for order in inputs["order"]:
        verb, _, what = (order or "").partition(" ")
        if verb == "read":
            Path(what).read_bytes()
        elif verb == "die":
            os.kill(os.getpid(), int(what))
        elif verb == "fail":
            raise RuntimeError(what)
    return {"done": list(inputs["order"])}
"""


def entity_rows(orders: list[str]) -> dict[str, list[Any]]:
    """Entity rows as JSON columns, one for each order."""
    return {"driver_id": [1] * len(orders), "event_timestamp": [NOW.isoformat()] * len(orders), "order": orders}


def entity_table(orders: list[str]) -> pa.Table:
    """The same as a table."""
    times = pa.array([NOW] * len(orders), pa.timestamp("us", "UTC"))
    return pa.table({"driver_id": pa.array([1] * len(orders)), "event_timestamp": times, "order": orders})


def ask(live: LiveServer, *orders: str) -> Any:
    """Asks for a small retrieval and waits for its answer."""
    return live.post(ASK, {"entities": entity_rows(list(orders) or ["nothing"]), "features": OBEDIENT})


def processes(live: LiveServer) -> list[psutil.Process]:
    """The processes of retrievals that run now."""
    return [child for zygote in zygotes(live) for child in zygote.children()]


def zygotes(live: LiveServer) -> list[psutil.Process]:
    """The warm processes of a server."""
    children = psutil.Process(live.process.pid).children()
    workers = [child for child in children if "spawn_main" in " ".join(cmdline(child))]
    children += [child for worker in workers for child in worker.children()]
    return [child for child in children if "server.retrieval.zygote" in cmdline(child)]


def cmdline(process: psutil.Process) -> list[str]:
    """The command of a process, nothing if it has gone."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def free_places(repo: Path) -> int:
    """How many places are free just now."""
    places = Places(repo / "data" / "retrievals", HISTORICAL_CONCURRENT_MAX)
    taken = [place for place in (places.take() for _ in range(places.count)) if place is not None]
    for place in taken:
        os.close(place)
    return len(taken)


def work_folders(folder: Path) -> list[Path]:
    """The folders of retrievals, under the folder in which they spill."""
    return list(folder.glob(f"{FOLDER_PREFIX}*"))


@contextmanager
def connection(live: LiveServer) -> Iterator[socket.socket]:
    """A bare connection to a server."""
    host, _, port = live.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connected:
        yield connected


def request_bytes(orders: list[str]) -> bytes:
    """A whole request as it goes over the wire."""
    body = msgspec.json.encode({"entities": entity_rows(orders), "features": OBEDIENT})
    head = f"POST {ASK} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def waiting_retrieval(live: LiveServer, fifo: Path) -> Iterator[socket.socket]:
    """A retrieval that has begun and waits for a fifo; the block gets its connection."""
    if not fifo.exists():
        os.mkfifo(fifo)
    before = {child.pid for child in processes(live)}
    with connection(live) as waiting:
        waiting.sendall(request_bytes([f"read {fifo}"]))
        poll_until(lambda: {child.pid for child in processes(live)} - before, 60, "the retrieval has its process")
        yield waiting
