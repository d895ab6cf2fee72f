"""Profiles to keep and to read again, made by hand."""

from typing import Any

import datasketches
import numpy as np

from store.kernel.histograms import Histogram
from store.kernel.profiles import DISTINCT_LG_K, Categories, ColumnProfile, Kind, Moments, Numbers
from store.limits import CATEGORY_GROUPS
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

DAY_US = 86_400_000_000
VIEW = Subject(SubjectKind.FEATURE_VIEW, "weather")


def sketch_of(values: list[Any]) -> bytes:
    sketch = datasketches.update_theta_sketch(DISTINCT_LG_K)
    for value in values:
        sketch.update(value)
    return bytes(sketch.compact(ordered=True).serialize())


def days(first: int, last: int) -> Span:
    return Span(first * DAY_US, last * DAY_US)


def numbers(values: list[float]) -> Numbers:
    finite = np.array(values, np.float64)
    mean = float(finite.mean()) if values else 0.0
    return Numbers(
        Histogram.of(finite),
        min(values, default=None),
        max(values, default=None),
        mean,
        float(((finite - mean) ** 2).sum()),
        all(type(value) is int for value in values),
        nans=1,
        positive_infinities=2,
        negative_infinities=3,
    )


def columns() -> dict[str, ColumnProfile]:
    groups = np.arange(CATEGORY_GROUPS, dtype=np.int64)
    found = [
        ColumnProfile("temp", "Float64", Kind.NUMBER, 10, 2, {}, sketch_of([1.5, 2.5]), numbers([1.5, -2.5])),
        ColumnProfile("count", "Int64", Kind.NUMBER, 3, 0, numbers=numbers([-(2**63), 2**63, 2**64 - 1])),
        ColumnProfile("none", "Float64", Kind.NUMBER, 4, 4, numbers=numbers([])),
        ColumnProfile(
            "sky", "String", Kind.CATEGORY, 10, 1, {"PRESENT": 9, "NOT_FOUND": 1}, sketch_of(["é", "b"]),
            categories=Categories({"é": 5, "b'\"": 4}), lengths=numbers([1, 3]),
        ),
        ColumnProfile("id", "String", Kind.CATEGORY, 10, 1, categories=Categories(None, groups, {"x": 7})),
        ColumnProfile("at", "UnixTimestamp", Kind.MOMENT, 10, 1, moments=Moments(-5, 2**62)),
        ColumnProfile("list", "Array(Float64)", Kind.LIST, 10, 1, lengths=numbers([0, 7])),
        ColumnProfile("map", "Map", Kind.OPAQUE, 10, 1, skipped="maps are not summed up"),
    ]  # fmt: skip
    return {column.name: column for column in found}


def profile(span: Span, rows: int = 10, computed_us: int = 5, subject: Subject = VIEW, **given: Any) -> SubjectProfile:
    content = {"columns": columns(), "notes": ("3 rows have no event time",)} | given
    return SubjectProfile(rows=rows, subject=subject, span=span, computed_us=computed_us, **content)
