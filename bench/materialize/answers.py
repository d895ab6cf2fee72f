"""Answers compared before times: what lookups say after each materialization, and what the files say."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from bench.materialize.repos import references
from bench.offline.shapes import CREATED, EVENT, KEY, feature_names
from bench.online.answers import AnswersDiffer

SAMPLE_KEYS = 1_000

Columns = dict[str, list[Any]]


def sample(keys: int) -> list[int]:
    """Returns some keys below a bound, the same ones each time."""
    chosen = np.random.default_rng(5).choice(keys, min(keys, SAMPLE_KEYS), replace=False)
    return sorted(int(key) for key in chosen)


def looked_up(repo: Path, keys: Sequence[int]) -> Columns:
    """Returns the features of some keys as a repo's own online store answers them through Feast's SDK."""
    from feast import FeatureStore

    columns = FeatureStore(str(repo)).get_online_features(references(), {KEY: list(keys)}).to_dict()
    return {name: list(values) for name, values in columns.items() if name != KEY}


def in_files(files: Sequence[Path], keys: Sequence[int]) -> Columns:
    """Returns the features of some keys as the newest rows in the files have them, null for a key without rows."""
    columns: Columns = {}
    wanted = ", ".join(map(str, keys))
    for view, file in enumerate(files):
        names = feature_names(view)
        rows = _fetched(
            f"SELECT {KEY}, {', '.join(names)} FROM read_parquet('{file}') WHERE {KEY} IN ({wanted}) QUALIFY "
            f"row_number() OVER (PARTITION BY {KEY} ORDER BY {EVENT} DESC, {CREATED} DESC) = 1"
        )
        row_of = {key: values for key, *values in rows}
        nulls = [None] * len(names)
        for number, name in enumerate(names):
            columns[name] = [row_of.get(key, nulls)[number] for key in keys]
    return columns


def _fetched(sql: str) -> list[Any]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


def count_keys(files: Sequence[Path]) -> int:
    """Returns how many keys have rows, summed over the files."""
    parts = " UNION ALL ".join(f"SELECT count(DISTINCT {KEY}) FROM read_parquet('{file}')" for file in files)
    return sum(count for (count,) in _fetched(parts))


def compare(one: Columns, other: Columns, titles: tuple[str, str], keys: Sequence[int]) -> None:
    """Raises AnswersDiffer unless both hold the same columns with the same values."""
    if one.keys() != other.keys():
        raise AnswersDiffer(f"{titles[0]} and {titles[1]} have other columns: {sorted(one.keys() ^ other.keys())}")
    for name, values in one.items():
        for key, left, right in zip(keys, values, other[name], strict=True):
            if left != right:
                raise AnswersDiffer(f"{name!r} of key {key}: {titles[0]} {left!r}, {titles[1]} {right!r}")


def digest_of(columns: Columns) -> str:
    """Returns a digest of an answer."""
    return hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()[:12]
