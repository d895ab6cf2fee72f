"""Answers compared before times: values, names and statuses, whoever gave them."""

import hashlib
import json
from typing import Any

Column = tuple[list[Any], list[str]]


class AnswersDiffer(Exception):
    """Two contenders answer the same question otherwise; the message says where."""


def columns_of(content: bytes) -> dict[str, Column]:
    """Returns values and statuses of an answer by name of the column; event timestamps are each server's own."""
    answer = json.loads(content)
    names = answer["metadata"]["feature_names"]
    pairs = zip(names, answer["results"], strict=True)
    return {name: (result["values"], result["statuses"]) for name, result in pairs}


def compare(one: bytes, other: bytes, titles: tuple[str, str]) -> None:
    """Raises AnswersDiffer unless both answers hold the same columns with the same values and statuses."""
    left, right = columns_of(one), columns_of(other)
    if left.keys() != right.keys():
        raise AnswersDiffer(f"{titles[0]} and {titles[1]} answer other columns: {sorted(left.keys() ^ right.keys())}")
    for name, column in left.items():
        if column != right[name]:
            raise AnswersDiffer(f"column {name!r}: {titles[0]} {column!r:.300}, {titles[1]} {right[name]!r:.300}")


def digest_of(content: bytes) -> str:
    """Returns a digest of the values and statuses of an answer."""
    text = json.dumps(columns_of(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
