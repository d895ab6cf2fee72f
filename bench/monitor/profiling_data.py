"""The tables that profiling is measured on: ten features of several shapes, and a variant with two of text."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

KEY, EVENT = "user_id", "event_timestamp"
START_US = 1_700_006_400_000_000
"""A midnight, UTC."""
DAYS = 30
DAY_US = 86_400_000_000
NUMBERS = ("normal", "wide_normal", "far_normal", "lognormal", "heavy", "heavier", "code", "small", "halves", "tenths")
TEXTS = ("normal", "lognormal", "code", "halves", "city", "visitor")
_ROW_GROUP_ROWS = 500_000


def table_file(folder: Path, variant: str, rows: int) -> Path:
    """Returns the Parquet file of a variant, `numbers` or `texts`, having written it if it is not there."""
    path = folder / f"profiling-{variant}-{rows}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        names = NUMBERS if variant == "numbers" else TEXTS
        pq.write_table(_table(rows, names), scratch, row_group_size=_ROW_GROUP_ROWS)
        scratch.rename(path)
    return path


def _table(rows: int, names: tuple[str, ...]) -> pa.Table:
    chance = np.random.default_rng(42)
    # Feast leaves out the last second of a day that it is asked for.
    stamps = START_US + np.sort(chance.integers(0, DAYS * DAY_US - 1_000_000, rows))
    columns = {
        KEY: pa.array(chance.integers(0, 100_000, rows)),
        EVENT: pa.array(stamps, pa.timestamp("us", "UTC")),
    }
    return pa.table(columns | {name: _column(name, rows, chance) for name in names})


def _column(name: str, rows: int, chance: np.random.Generator) -> pa.Array:
    nulls = {"halves": 0.05, "tenths": 0.1}
    mask = chance.random(rows) < nulls[name] if name in nulls else None
    if name in {"city", "visitor"}:
        numbers = chance.zipf(1.3, rows) % 300 if name == "city" else chance.integers(0, max(1, rows // 5), rows)
        words = pa.array([f"{name}_{number}" for number in range(int(numbers.max()) + 1)])
        return words.take(pa.array(numbers))
    makers = {
        "normal": lambda: chance.normal(0, 1, rows),
        "wide_normal": lambda: chance.normal(10, 200, rows),
        "far_normal": lambda: chance.normal(1e6, 3, rows),
        "lognormal": lambda: chance.lognormal(0, 1, rows),
        "heavy": lambda: chance.lognormal(1, 1.5, rows),
        "heavier": lambda: chance.lognormal(2, 2, rows),
        "code": lambda: chance.integers(0, 1_000, rows),
        "small": lambda: chance.poisson(5, rows).astype(np.int32),
        "halves": lambda: chance.integers(0, 50, rows) / 2,
        "tenths": lambda: np.round(chance.normal(0, 1, rows), 1),
    }
    return pa.array(makers[name](), mask=mask)
