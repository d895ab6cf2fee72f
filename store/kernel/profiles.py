"""What is known of the values of a feature, in a form that adds up: profiles of two stretches make that of both.

Counts, least and greatest values, histograms, distinct counts and counts of categories come out the same in whatever
order profiles are merged; means and standard deviations do but for rounding.
"""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import datasketches
import numpy as np
import numpy.typing as npt

from store.kernel.histograms import Histogram
from store.limits import CATEGORIES_MAX, CATEGORY_GROUPS, TOP_MAX

DISTINCT_LG_K: Final = 12
"""4,096 hashes: exact to that many distinct values, then within 1.6 % (one standard error)."""


class Kind(StrEnum):
    """How values are summed up: as numbers, categories (texts, truths), lists, moments, or not at all."""

    NUMBER = "number"
    CATEGORY = "category"
    LIST = "list"
    MOMENT = "moment"
    OPAQUE = "opaque"


class Spread(NamedTuple):
    """How many finite numbers there are, their mean, and the sum of their squared differences to it.

    Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
    """

    number: int
    mean: float
    squares: float

    def merge(self, other: "Spread") -> "Spread":
        """Returns that of the numbers of both."""
        if not self.number or not other.number:
            return self if self.number else other
        total = self.number + other.number
        share = other.number / total
        gap = other.mean - self.mean
        # The difference of the greatest doubles is infinite, and their mean is not.
        mean = self.mean + gap * share if math.isfinite(gap) else self.mean * (1 - share) + other.mean * share
        return Spread(total, mean, self.squares + other.squares + gap * gap * (self.number * share))


_SQUARES_MIN: Final = 2.0**-900
"""Below it, sums of squares have lost digits, or everything."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of one column; what is not finite is counted and takes no part in anything else.

    Attributes:
        least, greatest: of the finite ones, None if there is none; integers where the column has them.
        mean: of the finite ones.
        squares: the sum of their squared differences to the mean.
        is_integral: all of them are integers.
    """

    histogram: Histogram
    least: int | float | None = None
    greatest: int | float | None = None
    mean: float = 0.0
    squares: float = 0.0
    is_integral: bool = True
    nans: int = 0
    positive_infinities: int = 0
    negative_infinities: int = 0

    @property
    def finite(self) -> int:
        """How many finite ones there are."""
        return self.histogram.total

    @property
    def spread(self) -> Spread:
        """Their number, mean and squares."""
        return Spread(self.finite, self.mean, self.squares)

    @property
    def standard_deviation(self) -> float | None:
        """That of the sample; None below two numbers, and where a double cannot hold their squares.

        So it is beyond about 1e154, and for numbers that are all within 1e-135 of each other but not the same.
        """
        if self.finite < 2:
            return None
        if self.least == self.greatest:
            return 0.0
        if not _SQUARES_MIN < self.squares < math.inf:
            return None
        return math.sqrt(self.squares / (self.finite - 1))

    def quantile(self, share: float) -> float | None:
        """Returns a number that `share` of all are not above, within 0.8 %; None of none."""
        found = self.histogram.quantile(share, is_integral=self.is_integral)
        if found is None or self.least is None or self.greatest is None:
            return None
        return min(max(found, self.least), self.greatest)

    def merge(self, other: "Numbers") -> "Numbers":
        """Returns the numbers of both."""
        spread = self.spread.merge(other.spread)
        return Numbers(
            histogram=self.histogram.merge(other.histogram),
            least=min((each for each in (self.least, other.least) if each is not None), default=None),
            greatest=max((each for each in (self.greatest, other.greatest) if each is not None), default=None),
            mean=spread.mean,
            squares=spread.squares,
            is_integral=self.is_integral and other.is_integral,
            nans=self.nans + other.nans,
            positive_infinities=self.positive_infinities + other.positive_infinities,
            negative_infinities=self.negative_infinities + other.negative_infinities,
        )


def group_of(category: str) -> int:
    """Returns the group of a category, where there are too many to count each."""
    return zlib.crc32(category.encode("utf-8", "surrogatepass")) % CATEGORY_GROUPS


@dataclass(frozen=True, slots=True, eq=False)
class Categories:
    """How often each category came, or, with more than `CATEGORIES_MAX` of them, each group of categories.

    Attributes:
        counts: by category; None if there are too many.
        groups: by `group_of`, where `counts` is None. Shape: `CATEGORY_GROUPS` counts.
        top: where `counts` is None, frequent categories with counts that are no more than the true ones.
    """

    counts: Mapping[str, int] | None
    groups: npt.NDArray[np.int64] | None = None
    top: Mapping[str, int] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Categories)
            and self.counts == other.counts
            and self.top == other.top
            and np.array_equal(self.grouped(), other.grouped())
        )

    __hash__ = None  # type: ignore[assignment]

    def most_frequent(self, number: int) -> list[tuple[str, int]]:
        """Returns the most frequent categories, those that are equally frequent by name."""
        return sorted(self.listed.items(), key=lambda each: (-each[1], each[0]))[:number]

    @property
    def listed(self) -> Mapping[str, int]:
        """The categories that are counted each."""
        return self.top if self.counts is None else self.counts

    def merge(self, other: "Categories") -> "Categories":
        """Returns the categories of both."""
        mine, theirs = self.listed, other.listed
        both = dict(mine)
        for category, count in theirs.items():
            both[category] = both.get(category, 0) + count
        if self.counts is not None and other.counts is not None and len(both) <= CATEGORIES_MAX:
            return Categories(both)
        merged = Categories(None, self.grouped() + other.grouped(), both)
        return replace(merged, top=dict(merged.most_frequent(TOP_MAX)))

    def grouped(self) -> npt.NDArray[np.int64]:
        """Returns how often each group of categories came. Shape: `CATEGORY_GROUPS` counts."""
        if self.groups is not None:
            return self.groups
        groups = np.zeros(CATEGORY_GROUPS, np.int64)
        for category, count in (self.counts or {}).items():
            groups[group_of(category)] += count
        return groups


@dataclass(frozen=True, slots=True)
class Moments:
    """The earliest and the latest of some instants.

    Units: microseconds since the epoch.
    """

    earliest_us: int
    latest_us: int

    def merge(self, other: "Moments") -> "Moments":
        """Returns the moments of both."""
        return Moments(min(self.earliest_us, other.earliest_us), max(self.latest_us, other.latest_us))


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One feature: how many values, how many are missing, and how the others are distributed.

    Attributes:
        type_name: Feast's name of the declared type, such as `Float64`.
        rows: values looked at, nulls included.
        nulls: of them without a value, for whatever reason; NaN is a value that `numbers` counts apart.
        statuses: of served values how many had each status; empty for what was not served.
        sketch: the distinct values, as a serialized compact theta sketch of Apache DataSketches, trimmed; b'' of none.
        numbers: of numbers; of lists, none. `lengths`: characters of a text, items of a list.
        skipped: why a column is not summed up beyond its nulls, '' if it is.
    """

    name: str
    type_name: str
    kind: Kind
    rows: int = 0
    nulls: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    sketch: bytes = b""
    numbers: Numbers | None = None
    categories: Categories | None = None
    lengths: Numbers | None = None
    moments: Moments | None = None
    skipped: str = ""

    @property
    def distinct(self) -> int:
        """How many different values there are, nulls not counted: exact to 4,096, then within 1.6 % (one deviation)."""
        if not self.sketch:
            return 0
        return round(float(datasketches.compact_theta_sketch.deserialize(self.sketch).get_estimate()))

    def merge(self, other: "ColumnProfile") -> "ColumnProfile":
        """Returns the profile of the values of both; the two are of one kind."""
        statuses = {
            status: self.statuses.get(status, 0) + other.statuses.get(status, 0)
            for status in {**self.statuses, **other.statuses}
        }
        return replace(
            self,
            rows=self.rows + other.rows,
            nulls=self.nulls + other.nulls,
            statuses=statuses,
            sketch=merged_sketch(self.sketch, other.sketch),
            numbers=_merged(self.numbers, other.numbers),
            categories=_merged(self.categories, other.categories),
            lengths=_merged(self.lengths, other.lengths),
            moments=_merged(self.moments, other.moments),
            skipped=self.skipped or other.skipped,
        )


def merged_sketch(mine: bytes, theirs: bytes) -> bytes:
    """Returns the sketch of the distinct values of both."""
    if not mine or not theirs:
        return mine or theirs
    union = datasketches.theta_union(DISTINCT_LG_K)
    for each in (mine, theirs):
        union.update(datasketches.compact_theta_sketch.deserialize(each))
    merged: bytes = union.get_result().serialize()
    return merged


def _merged(mine: Any, theirs: Any) -> Any:
    if mine is None or theirs is None:
        return theirs if mine is None else mine
    return mine.merge(theirs)


@dataclass(frozen=True, slots=True)
class Profile:
    """All columns of a subject over one stretch of time, by name.

    Attributes:
        rows: rows looked at.
        columns: by feature name, in the order of the schema.
        notes: what whoever reads it should know, in sentences: rows left out, columns that are missing.
    """

    rows: int
    columns: Mapping[str, ColumnProfile]
    notes: tuple[str, ...] = ()

    def merge(self, other: "Profile") -> "Profile":
        """Returns the profile of the rows of both.

        A column whose kind changed is taken from the one of more rows, and a note says so; likewise one that only one
        of them has keeps its own number of rows.
        """
        columns = dict(self.columns)
        notes = list(dict.fromkeys((*self.notes, *other.notes)))
        for name, theirs in other.columns.items():
            mine = columns.get(name)
            if mine is None:
                columns[name] = theirs
            elif mine.kind == theirs.kind:
                columns[name] = mine.merge(theirs)
                if mine.type_name != theirs.type_name:
                    changed = f"feature {name!r} changed its type from {mine.type_name} to {theirs.type_name}"
                    notes.append(f"{changed}: the values of both are summed up together")
            else:
                columns[name] = max(mine, theirs, key=lambda each: each.rows)
                notes.append(
                    f"feature {name!r} was {mine.type_name} and is {theirs.type_name}: only its values as "
                    f"{columns[name].type_name} are summed up"
                )
        return Profile(self.rows + other.rows, columns, tuple(dict.fromkeys(notes)))
