"""The bodies of requests and answers, as typed structs: Feast's own shapes where Feast has one.

A field that is not listed here is refused: a misspelt option must not be skipped in silence.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from mmap import mmap
from typing import Any, Literal, TypeVar

import msgspec

from server.json_bodies import refuse_repeated_keys
from store.errors import BadBody, TooLarge, UnequalLengths, shortened, shown

Columns = dict[str, list[Any]]


class LookupBody(msgspec.Struct, forbid_unknown_fields=True):
    """Entity columns and what to look up for them: either `features` (`view:feature`) or a `feature_service`."""

    entities: Columns
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False

    @property
    def keys_min(self) -> int:
        """How many distinct keys its JSON has at least: those of the fields that are not empty, and the columns'."""
        return 1 + len(self.entities) + bool(self.features) + bool(self.feature_service)


class HistoricalBody(msgspec.Struct, forbid_unknown_fields=True):
    """Entity rows as columns, `event_timestamp` among them, and the features to join to them.

    An event timestamp is ISO 8601 text (without a zone: UTC), or a number of seconds since 1970, or null.
    """

    entities: Columns
    feature_service: str | None = None
    features: list[str] = []
    full_feature_names: bool = False
    filter_by_created_timestamp: bool = False


class PushBody(msgspec.Struct, forbid_unknown_fields=True):
    """Rows for a push source, as columns. `allow_registry_cache` and `transform_on_write` are Feast's; both are moot.

    The registry is always fresh here, and a row-level transformation runs once, wherever the rows come from.
    """

    push_source_name: str
    df: Columns
    allow_registry_cache: bool = True
    to: Literal["online", "offline", "online_and_offline"] = "online"
    transform_on_write: bool = True


class WriteBody(msgspec.Struct, forbid_unknown_fields=True):
    """Rows for one feature view's online rows, as columns, with an event timestamp each."""

    feature_view_name: str
    df: Columns
    allow_registry_cache: bool = True
    transform_on_write: bool = True


class MaterializeBody(msgspec.Struct, forbid_unknown_fields=True):
    """The interval [start_ts, end_ts) in ISO 8601, and the views (all if none are named)."""

    start_ts: str | None = None
    end_ts: str | None = None
    feature_views: list[str] | None = None
    disable_event_timestamp: bool = False
    full_feature_names: bool = False
    version: str | None = None


class MaterializeIncrementalBody(msgspec.Struct, forbid_unknown_fields=True):
    """The end of the interval in ISO 8601, and the views (all if none are named)."""

    end_ts: str
    feature_views: list[str] | None = None
    full_feature_names: bool = False
    version: str | None = None


class ViewVersion(msgspec.Struct, omit_defaults=True):
    """The version of a feature view that an answer was read from; 0, for none, is left out, as in protobuf's JSON."""

    name: str
    version: int = 0


class LookupMetadata(msgspec.Struct, omit_defaults=True):
    """The names of an answer's columns, and the views' versions if they were asked for."""

    feature_names: list[str]
    feature_view_metadata: list[ViewVersion] | None = None


class FeatureVector(msgspec.Struct):
    """One column of an answer: values, statuses and event timestamps, one a row; null where no row was found."""

    values: list[Any]
    statuses: list[str]
    event_timestamps: list[str | None]


class LookupAnswerBody(msgspec.Struct):
    """The answer to a lookup, column-major: `results[i]` belongs to `metadata.feature_names[i]`."""

    metadata: LookupMetadata
    results: list[FeatureVector]


class RowsAccepted(msgspec.Struct):
    """How many rows were accepted."""

    rows: int


class Refusal(msgspec.Struct):
    """What was wrong, with the offending value, what was expected and what to do."""

    detail: str


Body = TypeVar("Body")


def decode(body: bytes | mmap, kind: type[Body]) -> Body:
    """Returns a JSON body as the struct that it should be.

    Raises:
        BadBody: not JSON (the message names the byte), or a field missing, unknown, mistyped or given twice (it names
            the path or the key).
    """
    try:
        decoded = msgspec.json.decode(body, type=kind)
        refuse_repeated_keys(body, decoded.keys_min if isinstance(decoded, LookupBody) else 0)
        return decoded
    except msgspec.ValidationError as error:
        fields = ", ".join(kind.__struct_fields__)  # type: ignore[attr-defined]
        raise BadBody(f"body: {shortened(error)}; the fields are {fields} (see /docs)") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        where = "" if "byte" in str(error) else f" (at its end, byte {len(body)})"
        raise BadBody(f"body: not valid JSON: {shortened(error)}{where}; send one JSON object in UTF-8") from error
    except RecursionError as error:
        raise BadBody("body: JSON nested too deeply; send columns of plain values") from error


def row_count_of(columns: Mapping[str, Sequence[Any]], what: str, rows_max: int) -> int:
    """Returns the number of rows that columns have in common, 0 if there are none.

    Raises:
        UnequalLengths: they differ.
        TooLarge: more than `rows_max` rows.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UnequalLengths(
            f"{what}: columns of unequal lengths {shown(lengths)}; send one value per row in every column"
        )
    row_count = next(iter(lengths.values()), 0)
    if row_count > rows_max:
        raise TooLarge(f"{what}: {row_count} rows, at most {rows_max} are taken; send the rows in several requests")
    return row_count


def check_selection(features: Sequence[str], feature_service: str | None, features_max: int) -> None:
    """Checks that a request names either features or a feature service, and not too many.

    Raises:
        BadBody: neither or both are given.
        TooLarge: more than `features_max` references.
    """
    if bool(features) == (feature_service is not None):
        got = "both" if features else "neither"
        raise BadBody(f"features, feature_service: got {got}; give a list of 'view:feature' or the name of a service")
    if len(features) > features_max:
        raise TooLarge(
            f"features: {len(features)} references, at most {features_max} are taken; ask in several requests"
        )


def instant(field: str, text: str) -> datetime:
    """Returns an ISO 8601 instant in UTC; one without a zone is UTC.

    Raises:
        BadBody: it is not one, or not in the years 1 to 9999 UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadBody(
            f"{field}: {shown(text)} is not an ISO 8601 instant in the years 1 to 9999 UTC; "
            "write it like 2013-12-01T12:00:00Z"
        ) from error
