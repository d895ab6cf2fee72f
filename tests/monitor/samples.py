"""Profiles of samples that a test has at hand."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from store.kernel.histograms import Histogram
from store.kernel.profiles import Categories, ColumnProfile, Kind, Numbers
from store.limits import CATEGORIES_MAX
from store.monitor.subjects import Span, Subject, SubjectProfile
from tests.monitor.profiles import VIEW, days


def numbers(values: Sequence[float]) -> Numbers:
    every = np.array(values, np.float64)
    finite = every[np.isfinite(every)]
    # Scaled, since a sum of the greatest doubles is infinite.
    scale = float(np.abs(finite).max()) or 1.0 if len(finite) else 1.0
    mean = float((finite / scale).mean() * scale) if len(finite) else 0.0
    with np.errstate(over="ignore"):
        squares = float(((finite - mean) ** 2).sum())
    return Numbers(
        Histogram.of(finite),
        float(finite.min()) if len(finite) else None,
        float(finite.max()) if len(finite) else None,
        mean,
        squares,
        bool(np.all(finite == np.trunc(finite))),
        nans=int(np.isnan(every).sum()),
        positive_infinities=int((every == math.inf).sum()),
        negative_infinities=int((every == -math.inf).sum()),
    )


def numeric(name: str, values: Sequence[float], nulls: int = 0, type_name: str = "Float64") -> ColumnProfile:
    return ColumnProfile(name, type_name, Kind.NUMBER, len(values) + nulls, nulls, numbers=numbers(values))


def texts(name: str, values: Sequence[str], nulls: int = 0) -> ColumnProfile:
    categories = Categories(Counter(values))
    if len(set(values)) > CATEGORIES_MAX:
        categories = Categories(None, categories.grouped(), {})
    return ColumnProfile(
        name, "String", Kind.CATEGORY, len(values) + nulls, nulls,
        categories=categories, lengths=numbers([len(each) for each in values]),
    )  # fmt: skip


def served(column: ColumnProfile, statuses: Mapping[str, int]) -> ColumnProfile:
    return replace(column, statuses=statuses)


def profile_of(
    *columns: ColumnProfile, subject: Subject = VIEW, span: Span | None = None, computed_us: int = 5, **given: Any
) -> SubjectProfile:
    rows = max((each.rows for each in columns), default=0)
    content = {"rows": rows, "columns": {each.name: each for each in columns}} | given
    return SubjectProfile(subject=subject, span=span or days(0, 1), computed_us=computed_us, **content)
