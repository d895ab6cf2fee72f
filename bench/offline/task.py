"""What one contender is asked to do, as plain values that travel to its process as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.offline.shapes import SPAN_US, TTL_DAYS, Shape

DAY_US = 86_400_000_000
TTL_US = TTL_DAYS * DAY_US
# Two buckets of 2.75 mean gaps hold an answer for some 98 % of the entity rows; found by trying 1 to 6 of them.
BUCKET_GAPS = 2.75


@dataclass(frozen=True, slots=True)
class Task:
    """One retrieval: a contender, its input files, and the settings that all contenders share.

    Args:
        entities: Parquet file of entity rows; read before the clock starts, except if `is_entity_path`.
        output: the Parquet file to write instead of returning the answer as an Arrow table.
        is_entity_path: the contender gets the path of the entity rows and reads them itself, within the time.
        bucket_us: width of the time buckets of the hand-written SQL, None for a join on the key alone.
    """

    contender: str
    history: tuple[str, ...]
    entities: str
    scratch: str
    threads: int
    bucket_us: int | None = None
    is_cut_by_created: bool = False
    memory_limit: str | None = None
    output: str | None = None
    is_entity_path: bool = False

    def to_json(self) -> str:
        """Returns the task as one line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> "Task":
        """Returns the task that `to_json` wrote."""
        values = json.loads(line)
        return Task(**{**values, "history": tuple(values["history"])})

    @property
    def folder(self) -> Path:
        """Returns a folder of this task's own for a registry or for spilling, made now."""
        path = Path(self.scratch)
        path.mkdir(parents=True, exist_ok=True)
        return path


def bucket_us(shape: Shape) -> int | None:
    """Returns the bucket width that suits a history, None where one key has few rows within the time to live."""
    width = int(BUCKET_GAPS * SPAN_US * shape.keys / shape.rows)
    return width if width < TTL_US else None
