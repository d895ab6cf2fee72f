"""How much a retrieval takes at a time, from the memory that it may use."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pat

from store.errors import ConfigError
from store.machine import available_bytes
from store.offline.connection import ConnectionSettings

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)

_MEMORY_BYTES_MAX = 10**15
"""DuckDB counts memory in 64 bits, and no machine has more."""

_DEFAULT_SHARE = 0.8
"""Of the machine's memory, without a limit: DuckDB's own default."""

_DUCKDB_SHARE, _BLOCK_SHARE = 0.45, 0.25
"""What DuckDB and the block of entity rows take; the rest is Python, Feast and the libraries."""

_EVENT_SHARE = 0.1
"""What the events of windows take before they are spilled; most retrievals have none."""

_BLOCK_ROW_BYTES = 300
"""An entity row besides its features: key, times, codes, and what each search keeps of it."""

BLOCK_ROWS_MIN, BLOCK_ROWS_MAX = 50_000, 4_000_000
"""Every block reads the sources once more, so few; four million rows of 30 numbers are a gigabyte."""

_TEXT_BYTES, _LIST_BYTES = 64, 512
"""What a text or a list is taken to need; the footers of compressed files do not tell."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory for DuckDB in bytes, entity rows taken at a time, sources at a time, memory for the events of one."""

    duckdb_bytes: int
    block_rows: int
    workers: int
    event_bytes: int


def bytes_of(amount: str) -> int:
    """Returns an amount of memory such as `4GB` or `512MiB` in bytes.

    Raises:
        ConfigError: it is none, or more than any machine has.
    """
    match = _AMOUNT.fullmatch(amount)
    if match is None or not (count := int(float(match[1]) * _UNITS[(match[2] or "").lower()])):
        raise ConfigError(f"memory_limit {amount!r} is no amount of memory; write it like '4GB'")
    if count > _MEMORY_BYTES_MAX:
        raise ConfigError(f"memory_limit {amount!r} is more than a petabyte; write what the machine has, like '4GB'")
    return count


def budget_of(
    settings: ConnectionSettings,
    features: Sequence[pa.DataType],
    row_count: int,
    source_count: int,
) -> Budget:
    """Returns the budget of a retrieval.

    Args:
        features: the types of the columns that will stand in the answer beside the entity rows.
        row_count: entity rows; blocks are of about equal size.
        source_count: how many searches could go on at a time.
    """
    if settings.memory_limit is not None:
        total = bytes_of(settings.memory_limit)
    else:
        total = int(_DEFAULT_SHARE * available_bytes())
    threads = settings.threads or os.cpu_count() or 1
    workers = max(1, min(source_count, threads))
    row_bytes = _BLOCK_ROW_BYTES + 2 * sum(map(_width, features))
    block = _clamped(int(_BLOCK_SHARE * total / row_bytes), BLOCK_ROWS_MIN, BLOCK_ROWS_MAX)
    blocks = max(1, -(-row_count // block))
    event_bytes = int(_EVENT_SHARE * total / workers)
    return Budget(int(_DUCKDB_SHARE * total), max(1, -(-row_count // blocks)), workers, event_bytes)


def _width(kind: pa.DataType) -> int:
    """Returns about how many bytes a value takes."""
    if pat.is_nested(kind):
        return _LIST_BYTES
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return _TEXT_BYTES


def _clamped(value: int, low: int, high: int) -> int:
    return min(max(low, value), high)
