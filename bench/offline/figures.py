"""What is measured and what must be reached: each figure is a set of retrievals that run interleaved."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from bench.offline.contenders import TITLES
from bench.offline.measurements import Measurement
from bench.offline.shapes import VIEWS, Shape

MEMORY_LIMIT = "1GB"
PEAK_BYTES_MAX = 1_500_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One retrieval of a figure. One that is not timed only answers, so that others have something to agree with."""

    label: str
    contender: str
    shape: Shape
    entity_rows: int
    is_timed: bool = True
    is_cut_by_created: bool = False
    memory_limit: str | None = None
    writes_parquet: bool = False

    @property
    def question(self) -> tuple[object, ...]:
        """Returns what is asked: entries with the same question must give the same answer."""
        return self.shape, self.entity_rows, self.is_cut_by_created


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a target says of the measurements."""

    text: str
    is_met: bool


class Target(Protocol):
    """Something that must be reached."""

    def verdicts(self, measured: Mapping[str, Measurement]) -> Sequence[Verdict]:
        """Returns what the measurements say, nothing where one that is needed is missing."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median time of one entry is at most so many times that of another."""

    label: str
    against: str
    at_most: float

    def verdicts(self, measured: Mapping[str, Measurement]) -> Sequence[Verdict]:
        """Returns one verdict."""
        if self.label not in measured or self.against not in measured:
            return []
        one, other = measured[self.label], measured[self.against]
        ratio = one.wall_s_median / other.wall_s_median
        cpu = one.cpu_s_median / other.cpu_s_median
        text = f"{self.label} takes {ratio:.2f} of {self.against} (CPU {cpu:.2f}), at most {self.at_most:.3g}"
        return [Verdict(text, ratio <= self.at_most)]


@dataclass(frozen=True, slots=True)
class Peak:
    """The process of an entry never holds more than so many bytes."""

    label: str
    at_most_bytes: int = PEAK_BYTES_MAX

    def verdicts(self, measured: Mapping[str, Measurement]) -> Sequence[Verdict]:
        """Returns one verdict."""
        if self.label not in measured:
            return []
        peak = measured[self.label].peak_bytes
        text = f"{self.label} holds {peak / 1e6:.0f} MB at its peak, at most {self.at_most_bytes / 1e6:.0f}"
        return [Verdict(text, peak <= self.at_most_bytes)]


@dataclass(frozen=True, slots=True)
class Growth:
    """Time grows no faster than the number of rows, from each size to the next."""

    what: str
    sizes: tuple[tuple[int, str], ...]

    def verdicts(self, measured: Mapping[str, Measurement]) -> Sequence[Verdict]:
        """Returns one verdict per step between two sizes: the exponent x of time ~ rows^x, at most 1."""
        found = [(rows, measured[label].wall_s_median) for rows, label in self.sizes if label in measured]
        verdicts = []
        for (few, short), (many, long) in pairwise(found):
            exponent = math.log(long / short) / math.log(many / few)
            verdicts.append(
                Verdict(f"{few:,} to {many:,} {self.what}: exponent {exponent:.2f}, at most 1", exponent <= 1)
            )
        return verdicts


@dataclass(frozen=True, slots=True)
class Figure:
    """Retrievals that run interleaved, and the targets on them.

    Args:
        rounds_max: how often each runs after its first time; 0 takes the first run, of a fresh process, as the figure.
    """

    name: str
    title: str
    entries: tuple[Entry, ...]
    targets: tuple[Target, ...]
    rounds_max: int | None = None


@dataclass(frozen=True, slots=True)
class Sizes:
    """All sizes, divided by `scale`; the depth of history (rows per key) stays."""

    scale: int = 1

    def rows(self, full: int) -> int:
        """Returns a number of rows at this scale, at least 1."""
        return max(1, full // self.scale)

    def shallow(self, rows: int = 10_000_000) -> Shape:
        """Returns ten rows per key (fewer if `rows` is smaller)."""
        return Shape("shallow", self.rows(rows), self.rows(1_000_000))

    def deep(self, rows: int = 10_000_000) -> Shape:
        """Returns a thousand rows per key (fewer if `rows` is smaller)."""
        return Shape("deep", self.rows(rows), self.rows(10_000))


def all_figures(sizes: Sizes, *, has_feast_deep: bool = False) -> tuple[Figure, ...]:
    """Returns every figure.

    Args:
        has_feast_deep: let Feast's store answer a million rows over the deep history too, for minutes each time.
    """
    shapes = (sizes.shallow(), sizes.deep())
    return (
        _shallow(sizes),
        _deep_100k(sizes),
        _deep(sizes, has_feast=has_feast_deep),
        *(_linear(sizes, shape.name) for shape in shapes),
        *(_memory(sizes, shape) for shape in shapes),
        _stream(sizes),
        *(_few(sizes, shape) for shape in shapes),
        *(_cutoff(sizes, shape) for shape in shapes),
    )


def _title(entity_rows: int, shape: Shape) -> str:
    return f"{entity_rows:,} entity rows, {VIEWS} views of {shape.rows:,} rows over {shape.keys:,} keys"


def _side_by_side(contenders: Sequence[str], shape: Shape, entity_rows: int) -> tuple[Entry, ...]:
    return tuple(Entry(TITLES[name], name, shape, entity_rows) for name in contenders)


def _against(contender: str, at_most: float) -> Ratio:
    return Ratio(TITLES["larder"], TITLES[contender], at_most)


def _shallow(sizes: Sizes) -> Figure:
    shape, rows = sizes.shallow(), sizes.rows(1_000_000)
    return Figure(
        "shallow",
        _title(rows, shape),
        _side_by_side(("larder", "feast", "polars", "sql", "plain"), shape, rows),
        (_against("feast", 0.5), _against("polars", 0.8), _against("sql", 1.15)),
    )


def _deep_100k(sizes: Sizes) -> Figure:
    shape, rows = sizes.deep(), sizes.rows(100_000)
    return Figure(
        "deep-100k",
        _title(rows, shape),
        _side_by_side(("larder", "feast", "polars", "sql"), shape, rows),
        (_against("feast", 1 / 12),),
        # Feast takes most of a minute each time.
        rounds_max=2,
    )


def _deep(sizes: Sizes, *, has_feast: bool) -> Figure:
    contenders = ("larder", "polars", "sql", "plain", *(("feast",) if has_feast else ()))
    shape, rows = sizes.deep(), sizes.rows(1_000_000)
    return Figure(
        "deep",
        _title(rows, shape),
        _side_by_side(contenders, shape, rows),
        (_against("polars", 0.9), _against("polars", 0.8), _against("sql", 1.15)),
        rounds_max=1 if has_feast else None,
    )


def _linear(sizes: Sizes, name: str) -> Figure:
    make = sizes.shallow if name == "shallow" else sizes.deep
    asked = [(make(), sizes.rows(rows)) for rows in (100_000, 300_000, 1_000_000)]
    read = [(make(rows), sizes.rows(1_000_000)) for rows in (2_500_000, 5_000_000, 10_000_000)]
    labels = {(shape, rows): f"Larder, {rows:,} of {shape.rows:,}" for shape, rows in (*asked, *read)}
    entries = [
        entry
        for (shape, rows), label in labels.items()
        for entry in (
            Entry(label, "larder", shape, rows),
            Entry(f"{TITLES['sql']}, {rows:,} of {shape.rows:,}", "sql", shape, rows, is_timed=False),
        )
    ]
    targets = (
        Growth("entity rows", tuple((case[1], labels[case]) for case in asked)),
        Growth("source rows", tuple((case[0].rows, labels[case]) for case in read)),
    )
    title = f"growth with entity rows and with source rows, {name}"
    return Figure(f"linear-{name}", title, tuple(entries), targets)


def _memory(sizes: Sizes, shape: Shape) -> Figure:
    rows = sizes.rows(1_000_000)
    entries = tuple(Entry(TITLES[name], name, shape, rows, memory_limit=MEMORY_LIMIT) for name in ("larder", "sql"))
    title = f"{_title(rows, shape)}, memory_limit {MEMORY_LIMIT}"
    return Figure(f"memory-{shape.name}", title, entries, (Peak(TITLES["larder"]),), rounds_max=0)


def _stream(sizes: Sizes) -> Figure:
    shape, rows = sizes.shallow(), sizes.rows(20_000_000)
    entries = tuple(
        Entry(TITLES[name], name, shape, rows, memory_limit=MEMORY_LIMIT, writes_parquet=True)
        for name in ("larder", "sql")
    )
    title = f"{_title(rows, shape)}, from Parquet to Parquet, memory_limit {MEMORY_LIMIT}"
    return Figure("stream", title, entries, (Peak(TITLES["larder"]),), rounds_max=0)


def _few(sizes: Sizes, shape: Shape) -> Figure:
    rows = sizes.rows(1_000)
    return Figure(
        f"few-{shape.name}",
        _title(rows, shape),
        _side_by_side(("larder", "sql", "plain"), shape, rows),
        (_against("sql", 1.3), _against("plain", 0.25)),
    )


def _cutoff(sizes: Sizes, shape: Shape) -> Figure:
    rows = sizes.rows(1_000_000)
    cut, whole = f"{TITLES['larder']} with cutoff", TITLES["larder"]
    entries = (
        Entry(whole, "larder", shape, rows),
        Entry(TITLES["sql"], "sql", shape, rows, is_timed=False),
        Entry(cut, "larder", shape, rows, is_cut_by_created=True),
        Entry(f"{TITLES['sql']} with cutoff", "sql", shape, rows, is_cut_by_created=True),
    )
    title = f"{_title(rows, shape)}, with and without filter_by_created_timestamp"
    return Figure(f"cutoff-{shape.name}", title, entries, (Ratio(cut, whole, 3.5),))
