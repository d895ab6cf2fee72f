"""What Larder wrote, as commands packed beforehand: taken out of its Redis, and pushed down one socket of another.

`python -m bench.materialize.packed PORT FILE REPLIES` pushes a file and prints its figures. It is the baseline: only
Redis and the kernel work.
"""

import json
import mmap
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import redis

from bench.usage import cpu_seconds, peak_bytes
from store.kernel.codec import RowLayout
from store.kernel.keys import entity_keys_pattern
from store.online.conversations import Writing, script, write_calls

_CHUNK_BYTES = 1 << 20
_SCAN_KEYS = 10_000
_WRITING = Writing(0, RowLayout((), ()))


def rows_by_field(client: redis.Redis, project: str) -> dict[bytes, list[tuple[bytes, bytes]]]:
    """Returns all rows of a project as pairs of key and row, by the field of their view."""
    found: dict[bytes, list[tuple[bytes, bytes]]] = {}
    cursor: Any = None
    while cursor != 0:
        cursor, keys = client.scan(cursor or 0, match=entity_keys_pattern(project), count=_SCAN_KEYS)  # type: ignore[misc]
        with client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            for key, row_of in zip(keys, pipe.execute(), strict=True):
                for field, row in row_of.items():
                    found.setdefault(field, []).append((key, row))
    return found


def pack_plain(rows: dict[bytes, list[tuple[bytes, bytes]]], file: Path) -> int:
    """Writes one HSET a row, view after view; returns how many replies it will have."""
    with file.open("wb") as out:
        for field, pairs in rows.items():
            _write(out, ((b"HSET", key, field, row) for key, row in pairs))
    return sum(map(len, rows.values()))


def pack_scripted(rows: dict[bytes, list[tuple[bytes, bytes]]], file: Path) -> int:
    """Writes the script calls that Larder makes; returns how many replies they will have."""
    calls = 0

    def counted(commands: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        nonlocal calls
        for command in commands:
            calls += 1
            yield command

    with file.open("wb") as out:
        _write(out, counted([("SCRIPT", "LOAD", script("write")[0])]))
        for field, pairs in rows.items():
            _write(out, counted(write_calls(field, pairs, _WRITING)))
    return calls


def _write(out: BinaryIO, commands: Iterable[tuple[Any, ...]]) -> None:
    for command in commands:
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        out.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))


def push(port: int, file: Path, replies: int) -> float:
    """Returns the seconds from the first byte sent to the last reply."""
    with socket.create_connection(("127.0.0.1", port)) as connection, file.open("rb") as source:
        commands = memoryview(mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ))
        reader = threading.Thread(target=_read, args=(connection, replies))
        started = time.perf_counter()
        reader.start()
        for start in range(0, len(commands), _CHUNK_BYTES):
            connection.sendall(commands[start : start + _CHUNK_BYTES])
        reader.join()
        return time.perf_counter() - started


def _read(connection: socket.socket, replies: int) -> None:
    lines = 0
    # The reply to SCRIPT LOAD is a text of two lines.
    while lines < replies:
        received = connection.recv(_CHUNK_BYTES)
        if not received or b"-" in received:
            raise RuntimeError(f"Redis answered {received[:300]!r}")
        lines += received.count(b"\r\n") - received.count(b"$")


def main() -> None:
    """Pushes a file, and prints what it took as one line of JSON."""
    port, file, replies = sys.argv[1:]
    # Read once, so that the disk is no part of the time.
    Path(file).read_bytes()
    cpu = cpu_seconds()
    seconds = push(int(port), Path(file), int(replies))
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_seconds() - cpu, "peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
