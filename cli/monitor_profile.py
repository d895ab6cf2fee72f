"""`larder monitor profile`: profiles of features, computed, kept, and shown to people or as JSON to machines."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.instants import instant_us
from store.clock import clock_for, said
from store.errors import LarderError, UnknownObject
from store.kernel.profiles import ColumnProfile, Numbers, Profile
from store.monitor.due import DAY_US, every_us
from store.monitor.due import Asked as AskedTime
from store.monitor.profiling import Outcome, Profiler
from store.monitor.subjects import Subject, SubjectKind, SubjectProfile
from store.snapshot import RegistrySnapshots, load_config

DONE, FAILED, NOT_RUN = 0, 1, 2
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TOP_SHOWN = 10
_TEXT_SHOWN, _NAME_SHOWN = 24, 44
_WIDTH_MIN = 132


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command was asked for, as it was typed."""

    views: Sequence[str]
    services: Sequence[str]
    training_sets: Sequence[str]
    push_sources: Sequence[str]
    start: str | None = None
    end: str | None = None
    every: str = "1d"
    keep_days: int | None = None

    def subjects(self) -> list[Subject]:
        """Returns what was named, each once."""
        named = {
            SubjectKind.FEATURE_VIEW: self.views,
            SubjectKind.FEATURE_SERVICE: self.services,
            SubjectKind.TRAINING_SET: self.training_sets,
            SubjectKind.PUSH_SOURCE: self.push_sources,
        }
        return list(dict.fromkeys(Subject(kind, name) for kind, names in named.items() for name in names))

    def time(self) -> AskedTime:
        """Returns the time that was asked for.

        Raises:
            InputError: it is none, is empty, or has too many stretches.
        """
        start_us = None if self.start is None else instant_us("--from", self.start)
        end_us = None if self.end is None else instant_us("--to", self.end)
        return AskedTime(start_us, end_us, every_us(self.every))


def run(repo: Path, asked: Asked, *, is_json: bool) -> int:
    """Profiles what was asked for; returns 0 if all was done, 1 if something could not be, 2 if nothing was run."""
    try:
        time = asked.time()
        snapshots = RegistrySnapshots(load_config(repo), repo)
        snapshots.refresh()
        profiler = Profiler(snapshots.current().store, repo)
        subjects = asked.subjects() or profiler.subjects()
        profiler.require_known(subjects)
        outcomes = [_outcome(profiler, subject, time) for subject in subjects]
        deleted = _forget(profiler, repo, asked.keep_days)
    except LarderError as error:
        print(f"larder: {error}", file=sys.stderr)
        return NOT_RUN
    problems = profiler.files.problems
    for told in [outcome.problem for outcome in outcomes if outcome.problem] + problems:
        print(f"larder: {told}", file=sys.stderr)
    if is_json:
        print(json.dumps(as_json(outcomes, problems, deleted), indent=2))
    else:
        console = Console(highlight=False)
        # Cut columns would be cut numbers; a narrow terminal wraps lines instead.
        console.width = max(console.width, _WIDTH_MIN)
        _show(outcomes, deleted, console)
    return FAILED if any(outcome.problem for outcome in outcomes) else DONE


def _outcome(profiler: Profiler, subject: Subject, time: AskedTime) -> Outcome:
    try:
        return profiler.run(subject, time)
    except UnknownObject as error:
        return Outcome(subject, problem=str(error))


def _forget(profiler: Profiler, repo: Path, keep_days: int | None) -> int:
    if keep_days is None:
        return 0
    before_us = clock_for(repo).now_us() - keep_days * DAY_US
    subjects = [each for each in profiler.files.subjects() if each.kind is not SubjectKind.TRAINING_SET]
    return sum(profiler.files.forget(subject, before_us) for subject in subjects)


# --- for machines -------------------------------------------------------------------------------


def as_json(outcomes: Sequence[Outcome], problems: Sequence[str], deleted: int) -> dict[str, Any]:
    """Returns what a run did as objects that JSON has; instants in ISO 8601."""
    return {
        "is_done": not any(outcome.problem for outcome in outcomes),
        "subjects": [
            {
                "kind": str(outcome.subject.kind),
                "name": outcome.subject.name,
                "problem": outcome.problem or None,
                "notes": list(outcome.notes),
                "profiles": [profile_as_json(profile) for profile in outcome.profiles],
            }
            for outcome in outcomes
        ],
        "damaged": list(problems),
        "deleted": deleted,
    }


def profile_as_json(profile: SubjectProfile) -> dict[str, Any]:
    """Returns a profile without its histograms, as objects that JSON has."""
    return {
        "from": said(profile.span.start_us),
        "to": said(profile.span.end_us),
        "computed": said(profile.computed_us),
        "rows": profile.rows,
        "notes": list(profile.notes),
        "features": [_column_as_json(column) for column in profile.columns.values()],
    }


def _column_as_json(column: ColumnProfile) -> dict[str, Any]:
    moments, categories = column.moments, column.categories
    return {
        "feature": column.name,
        "type": column.type_name,
        "kind": str(column.kind),
        "rows": column.rows,
        "nulls": column.nulls,
        "distinct": column.distinct,
        "statuses": dict(column.statuses),
        "numbers": _numbers_as_json(column.numbers),
        "lengths": _numbers_as_json(column.lengths),
        "top": None if categories is None else dict(categories.most_frequent(_TOP_SHOWN)),
        "is_top_exact": None if categories is None else categories.counts is not None,
        "earliest": None if moments is None else said(moments.earliest_us),
        "latest": None if moments is None else said(moments.latest_us),
        "skipped": column.skipped or None,
    }


def _numbers_as_json(numbers: Numbers | None) -> dict[str, Any] | None:
    if numbers is None:
        return None
    return {
        "finite": numbers.finite,
        "nans": numbers.nans,
        "infinities": numbers.positive_infinities + numbers.negative_infinities,
        "min": numbers.least,
        "max": numbers.greatest,
        "mean": numbers.mean if numbers.finite else None,
        "standard_deviation": numbers.standard_deviation,
        "quantiles": {f"{share:g}": numbers.quantile(share) for share in QUANTILES},
    }


# --- for people ---------------------------------------------------------------------------------


def _show(outcomes: Sequence[Outcome], deleted: int, console: Console) -> None:
    for outcome in outcomes:
        for line in _lines(outcome):
            console.print(line, markup=False, soft_wrap=True)
        if outcome.profiles:
            first, *others = outcome.profiles
            columns = reduce(Profile.merge, others, cast("Profile", first)).columns.values()
            for table in _tables(list(columns)):
                console.print(table)
        console.print()
    if deleted:
        console.print(f"deleted {deleted} old profiles")


def _lines(outcome: Outcome) -> Iterator[str]:
    what = f"{outcome.subject.kind.replace('_', ' ')} {outcome.subject.name}"
    if outcome.problem:
        yield f"{what}: COULD NOT BE PROFILED: {outcome.problem}"
        return
    profiles = outcome.profiles
    if profiles:
        rows = sum(profile.rows for profile in profiles)
        hull = f"{said(profiles[0].span.start_us)} to {said(profiles[-1].span.end_us)}"
        yield f"{what}: {rows:,} rows in {len(profiles)} {'profile' if len(profiles) == 1 else 'profiles'}, {hull}"
    else:
        yield f"{what}: nothing new"
    notes = [*outcome.notes, *(note for profile in profiles for note in profile.notes)]
    for note in dict.fromkeys(notes):
        yield f"  {note}"


def _tables(columns: Sequence[ColumnProfile]) -> Iterator[Table]:
    texts = [column for column in columns if column.categories is not None or column.skipped]
    others = [column for column in columns if column not in texts]
    if others:
        yield _table(("min", "median", "max", "mean", "sd"), [(column, _measures(column)) for column in others])
    if texts:
        yield _table(("most frequent",), [(column, (_told(column),)) for column in texts])


def _table(names: Sequence[str], rows: Sequence[tuple[ColumnProfile, tuple[str, ...]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("feature", "rows", "nulls", "distinct", *names):
        is_text = name in {"feature", "most frequent"}
        table.add_column(name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for column, cells in rows:
        share = f"{column.nulls / column.rows:.1%}" if column.rows else "-"
        counted = f"{column.distinct:,}" if column.distinct else "-"
        # Names and values are shown as they are: none of their brackets is an instruction.
        table.add_row(*map(Text, (_plain(column.name, _NAME_SHOWN), f"{column.rows:,}", share, counted, *cells)))
    return table


def _measures(column: ColumnProfile) -> tuple[str, ...]:
    if column.moments is not None:
        return (f"{said(column.moments.earliest_us):.19}", "-", f"{said(column.moments.latest_us):.19}", "-", "-")
    # Of a list the number of its items.
    numbers = column.numbers or column.lengths
    if numbers is None or not numbers.finite:
        return ("-", "-", "-", "-", "-")
    shown = (numbers.least, numbers.quantile(0.5), numbers.greatest, numbers.mean, numbers.standard_deviation)
    return tuple(map(_number, shown))


def _told(column: ColumnProfile) -> str:
    if column.categories is None:
        return column.skipped
    shown = column.categories.most_frequent(3)
    return ", ".join(f"{_plain(name)} {count / max(1, column.rows):.0%}" for name, count in shown)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and abs(value) < 10**9 else f"{value:.5g}"


def _plain(text: str, most: int = _TEXT_SHOWN) -> str:
    """Returns a text as a terminal can show it: short, and without the signs by which one is steered."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
