"""The bytes of a kept profile: a Parquet file with one row per feature, and what it is of in the file's metadata.

    name, type, kind   text: the feature, Feast's name of its type, how it is summed up
    rows, nulls        int64
    skipped            text: why nothing but nulls was counted
    statuses           map of text to int64: of served values
    distinct           the theta sketch of Apache DataSketches, compact and ordered
    numbers, lengths   struct, null where there is none: `bucket`, `count` (lists, by `store.kernel.histograms`),
                       `least` and `greatest` (double), `exact_least` and `exact_greatest` (decimal, where they are
                       integers), `mean`, `squares`, `is_integral`, `nans`, `positive_infinities`,
                       `negative_infinities`
    categories         struct: `is_complete`, `name`, `count` (lists), `groups` (list, empty where complete)
    moments            struct: `earliest_us`, `latest_us`

The metadata has, under `larder_profile`, JSON: version, subject, span, when it was computed, rows and notes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import datasketches
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store.kernel.histograms import BUCKET_MAX, Histogram
from store.kernel.profiles import Categories, ColumnProfile, Kind, Moments, Numbers
from store.limits import CATEGORIES_MAX, CATEGORY_GROUPS, PROFILE_FEATURES_MAX, TOP_MAX
from store.monitor.kept_runs import OtherVersion
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile

FORMAT_VERSION: Final = 1
NOTE_KEY: Final = b"larder_profile"
_EXACT = pa.decimal128(20, 0)

_NUMBERS = pa.struct(
    {
        "bucket": pa.list_(pa.int32()),
        "count": pa.list_(pa.int64()),
        "least": pa.float64(),
        "greatest": pa.float64(),
        "exact_least": _EXACT,
        "exact_greatest": _EXACT,
        "mean": pa.float64(),
        "squares": pa.float64(),
        "is_integral": pa.bool_(),
        "nans": pa.int64(),
        "positive_infinities": pa.int64(),
        "negative_infinities": pa.int64(),
    }
)
_CATEGORIES = pa.struct(
    {
        "is_complete": pa.bool_(),
        "name": pa.list_(pa.string()),
        "count": pa.list_(pa.int64()),
        "groups": pa.list_(pa.int64()),
    }
)
SCHEMA: Final = pa.schema(
    {
        "name": pa.string(),
        "type": pa.string(),
        "kind": pa.string(),
        "rows": pa.int64(),
        "nulls": pa.int64(),
        "skipped": pa.string(),
        "statuses": pa.map_(pa.string(), pa.int64()),
        "distinct": pa.binary(),
        "numbers": _NUMBERS,
        "lengths": _NUMBERS,
        "categories": _CATEGORIES,
        "moments": pa.struct({"earliest_us": pa.int64(), "latest_us": pa.int64()}),
    }
)


class _Note(msgspec.Struct, frozen=True):
    version: int
    kind: SubjectKind
    name: str
    start_us: int
    end_us: int
    computed_us: int
    rows: int
    notes: tuple[str, ...]


class _Version(msgspec.Struct, frozen=True):
    version: int


# --- writing ------------------------------------------------------------------------------------


def to_parquet(profile: SubjectProfile, sink: Any) -> None:
    """Writes a profile into a file that is open for writing."""
    note = _Note(
        version=FORMAT_VERSION,
        kind=profile.subject.kind,
        name=profile.subject.name,
        start_us=profile.span.start_us,
        end_us=profile.span.end_us,
        computed_us=profile.computed_us,
        rows=profile.rows,
        notes=profile.notes,
    )
    rows = [_row(column) for column in profile.columns.values()]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({NOTE_KEY: msgspec.json.encode(note)}))
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)


def _row(column: ColumnProfile) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type_name,
        "kind": str(column.kind),
        "rows": column.rows,
        "nulls": column.nulls,
        "skipped": column.skipped,
        "statuses": sorted(column.statuses.items()),
        "distinct": column.sketch,
        "numbers": _numbers_row(column.numbers),
        "lengths": _numbers_row(column.lengths),
        "categories": _categories_row(column.categories),
        "moments": _moments_row(column.moments),
    }


def _numbers_row(numbers: Numbers | None) -> dict[str, Any] | None:
    if numbers is None:
        return None
    exact = [int(each) if type(each) is int else None for each in (numbers.least, numbers.greatest)]
    return {
        "bucket": numbers.histogram.numbers,
        "count": numbers.histogram.counts,
        "least": None if numbers.least is None else float(numbers.least),
        "greatest": None if numbers.greatest is None else float(numbers.greatest),
        "exact_least": exact[0],
        "exact_greatest": exact[1],
        "mean": numbers.mean,
        "squares": numbers.squares,
        "is_integral": numbers.is_integral,
        "nans": numbers.nans,
        "positive_infinities": numbers.positive_infinities,
        "negative_infinities": numbers.negative_infinities,
    }


def _moments_row(moments: Moments | None) -> dict[str, int] | None:
    return None if moments is None else {"earliest_us": moments.earliest_us, "latest_us": moments.latest_us}


def _categories_row(categories: Categories | None) -> dict[str, Any] | None:
    if categories is None:
        return None
    listed = sorted(categories.listed.items())
    return {
        "is_complete": categories.counts is not None,
        "name": [name for name, _ in listed],
        "count": [count for _, count in listed],
        "groups": [] if categories.groups is None else categories.groups,
    }


# --- reading ------------------------------------------------------------------------------------


def subject_of(metadata: Mapping[bytes, bytes] | None) -> Subject:
    """Returns whose profile a file is, by its metadata.

    Raises:
        OtherVersion: a later version wrote it.
        ValueError: it is none.
    """
    note = _note(metadata)
    return Subject(note.kind, note.name)


def from_parquet(source: Any) -> SubjectProfile:
    """Returns the profile that stands in a file.

    Raises:
        OtherVersion: a later version wrote it.
        ValueError, OSError: it is none, or is damaged.
    """
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        note = _note(file.metadata.metadata)
        if file.metadata.num_rows > PROFILE_FEATURES_MAX:
            raise ValueError(f"{file.metadata.num_rows} features, more than {PROFILE_FEATURES_MAX}")
        if not file.schema_arrow.equals(SCHEMA, check_metadata=False):
            raise ValueError("its columns are not those of a profile")
        rows = file.read().to_pylist()
    columns = {row["name"]: _column(row) for row in rows}
    if len(columns) != len(rows):
        raise ValueError("a feature stands in it twice")
    return SubjectProfile(
        subject=Subject(note.kind, note.name),
        span=Span(note.start_us, note.end_us),
        computed_us=note.computed_us,
        rows=note.rows,
        columns=columns,
        notes=note.notes,
    )


def _note(metadata: Mapping[bytes, bytes] | None) -> _Note:
    raw = (metadata or {}).get(NOTE_KEY)
    if raw is None:
        raise ValueError("it does not say that it is a profile")
    try:
        version = msgspec.json.decode(raw, type=_Version).version
        if version != FORMAT_VERSION:
            raise OtherVersion(f"it has format version {version}, this version of Larder reads {FORMAT_VERSION}")
        note = msgspec.json.decode(raw, type=_Note)
    except msgspec.DecodeError as error:
        raise ValueError(f"what it says of itself cannot be read ({error})") from error
    if note.start_us > note.end_us or note.rows < 0:
        raise ValueError("it ends before it starts, or has fewer than no rows")
    return note


def _column(row: Mapping[str, Any]) -> ColumnProfile:
    if not 0 <= row["nulls"] <= row["rows"]:
        raise ValueError(f"feature {row['name']!r} has {row['nulls']} nulls in {row['rows']} rows")
    sketch = row["distinct"] or b""
    if sketch:
        # Refuses bytes that are none, with an error of the library's own.
        try:
            datasketches.compact_theta_sketch.deserialize(sketch)
        except (RuntimeError, IndexError, MemoryError) as error:
            raise ValueError(f"the distinct values of feature {row['name']!r} cannot be read ({error})") from error
    moments = row["moments"]
    return ColumnProfile(
        name=row["name"],
        type_name=row["type"],
        kind=Kind(row["kind"]),
        rows=row["rows"],
        nulls=row["nulls"],
        statuses=dict(row["statuses"] or ()),
        sketch=sketch,
        numbers=_numbers(row["name"], row["numbers"]),
        categories=_categories(row["name"], row["categories"]),
        lengths=_numbers(row["name"], row["lengths"]),
        moments=None if moments is None else Moments(moments["earliest_us"], moments["latest_us"]),
        skipped=row["skipped"],
    )


def _numbers(name: str, row: Mapping[str, Any] | None) -> Numbers | None:
    if row is None:
        return None
    histogram = Histogram(np.array(row["bucket"], np.int32), np.array(row["count"], np.int64))
    if not _is_sound(histogram) or (row["least"] is None) != (not len(histogram.numbers)):
        raise ValueError(f"the numbers of feature {name!r} contradict each other")
    return Numbers(
        histogram,
        _exact_or(row["exact_least"], row["least"]),
        _exact_or(row["exact_greatest"], row["greatest"]),
        mean=row["mean"],
        squares=row["squares"],
        is_integral=row["is_integral"],
        nans=row["nans"],
        positive_infinities=row["positive_infinities"],
        negative_infinities=row["negative_infinities"],
    )


def _is_sound(histogram: Histogram) -> bool:
    if len(histogram.numbers) != len(histogram.counts):
        return False
    is_ordered = (np.diff(histogram.numbers) > 0).all() and (np.abs(histogram.numbers) <= BUCKET_MAX).all()
    return bool(is_ordered and (histogram.counts > 0).all())


def _exact_or(exact: Any, value: float | None) -> int | float | None:
    return value if exact is None else int(exact)


def _categories(name: str, row: Mapping[str, Any] | None) -> Categories | None:
    if row is None:
        return None
    names, counts, groups = row["name"], row["count"], row["groups"]
    most = CATEGORIES_MAX if row["is_complete"] else TOP_MAX
    is_sound = len(names) == len(counts) == len(set(names)) <= most and all(count > 0 for count in counts)
    if not is_sound or len(groups) != (0 if row["is_complete"] else CATEGORY_GROUPS):
        raise ValueError(f"the categories of feature {name!r} contradict each other")
    listed = dict(zip(names, counts, strict=True))
    return Categories(listed) if row["is_complete"] else Categories(None, _group_counts(groups), listed)


def _group_counts(groups: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.array(groups, np.int64)
