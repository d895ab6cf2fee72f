"""Names in Redis: injective, readable, prefixed by project, and in one cluster slot per entity key.

An entity key is written `<len>:<project>:{<len>:<join key><value>...}`, join keys in alphabetical order, for
example `7:flights:{4:dest s3:BOS6:origin s3:JFK}` without the spaces. A value is a type letter and its content:
`i<decimal>,` for integers, `s<bytes>:<utf-8>` for text, `b<bytes>:<raw>` for bytes, `?0` or `?1` for booleans,
`f<16 hex digits>` for floats. Every part carries its length or ends at a byte that cannot be in it, so two
different keys never share a name, and no project's names are a prefix of another's.

The braces are a Redis Cluster hash tag. A `}` inside a value ends the tag early, at the same byte for every
Redis key of that entity key, so they still share a slot; the tag is never empty, as it begins with a length.

Source: Redis Cluster specification, "Hash tags".
"""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

from store.errors import InputError, TooLarge, WrongType, shown
from store.kernel.definitions import Column
from store.limits import REDIS_KEY_BYTES_MAX

KeyValue = int | str | bytes | bool | float

_NAMES_VERSION = 2
"""Changes with the names and the form of what is stored: a Larder that knows others finds an empty store."""

_TILES_END = b"#"
"""Ends the key of tiles, so that none is taken for an entity key, which ends with a brace."""

_FINGERPRINT_DIGITS = 16
_BRACE = ord("}")

_NAMES_MAX = 4_096
"""Names that are kept once they were made: those of the views in use and of their generations."""

_DIGITS_MAX = 20

INT_TYPES = frozenset({"INT32", "INT64", "UNIX_TIMESTAMP"})
TEXT_TYPES = frozenset({"STRING", "UUID", "TIME_UUID", "DECIMAL", "JSON"})
FLOAT_TYPES = frozenset({"DOUBLE", "FLOAT"})
_FLOAT_MAX = 3.4028234663852886e38
_INT_BOUNDS = {"INT32": (-(2**31), 2**31 - 1), "INT64": (-(2**63), 2**63 - 1), "UNIX_TIMESTAMP": (-(2**63), 2**63 - 1)}


def project_prefix(project: str) -> bytes:
    """Returns the bytes that every Redis key of a project begins with, and no key of another project."""
    raw = project.encode()
    if not raw or b"{" in raw:
        raise InputError(f"project name {project!r} cannot be used in Redis keys; use letters, digits and '_'")
    return b"%d:%s:" % (len(raw), raw)


class KeyParts(NamedTuple):
    """What stands in all entity keys of some join keys: at the start, before each value, and at the end."""

    head: bytes
    columns: tuple[tuple[bytes, Column], ...]
    tail: bytes


def key_parts(project: str, join_keys: Iterable[Column]) -> KeyParts:
    """Returns what stands around the values of some join keys, these in alphabetical order."""
    ordered = sorted(join_keys, key=lambda column: column.name)
    columns = tuple((b"%d:%s" % (len(raw := column.name.encode()), raw), column) for column in ordered)
    return KeyParts(project_prefix(project) + b"{", columns, b"}" if columns else b"0:}")


def entity_key_encoder(project: str, join_keys: Sequence[Column]) -> "EntityKeyEncoder":
    """Returns the encoder of a view's entity keys; views with the same join keys share their Redis hashes."""
    return EntityKeyEncoder(project, tuple(sorted(join_keys, key=lambda column: column.name)))


class EntityKeyEncoder:
    """Encodes entity keys of one set of join keys; made once per view and plan.

    Attributes:
        names: the join keys in the order in which `encode` takes their values.
    """

    __slots__ = ("_around_number", "_bounds", "_parts", "names")

    def __init__(self, project: str, join_keys: tuple[Column, ...]) -> None:
        self.names = tuple(column.name for column in join_keys)
        self._parts = parts = key_parts(project, join_keys)
        self._around_number: tuple[str, str] | None = None
        if len(join_keys) == 1 and join_keys[0].type_name in INT_TYPES:
            around = b"%b%bi" % (parts.head, parts.columns[0][0]), b"," + parts.tail
            # Of a name without measure, each key has to be measured.
            if sum(map(len, around)) + _DIGITS_MAX <= REDIS_KEY_BYTES_MAX and b"\n" not in around[0]:
                self._around_number = around[0].decode(), around[1].decode()
                self._bounds = _INT_BOUNDS[join_keys[0].type_name]

    def encode(self, values: Sequence[KeyValue | None]) -> bytes | None:
        """Returns the Redis key of one entity key, or None if a part of it is null or NaN.

        Args:
            values: one value per join key, in the order of `names`.

        Raises:
            WrongType: a value that does not fit its join key's declared type.
            TooLarge: an encoded key of more than `REDIS_KEY_BYTES_MAX` bytes.
        """
        encoded = [self._parts.head]
        for (head, column), value in zip(self._parts.columns, values, strict=True):
            # NaN, which alone is not itself, is a null in training too.
            if value is None or value != value:  # noqa: PLR0124
                return None
            encoded.append(head)
            encoded.append(encode_value(column.name, column.type_name, value))
        encoded.append(self._parts.tail)
        key = b"".join(encoded)
        if len(key) > REDIS_KEY_BYTES_MAX:
            raise too_large(self.names, len(key))
        return key

    def encode_all(self, columns: Sequence[Sequence[KeyValue | None]], row_count: int) -> list[bytes | None]:
        """Returns the Redis keys of many entity keys, given by column; see `encode`."""
        if self._around_number is not None and set(map(type, columns[0])) == {int}:
            # Most entities have one integer for a key, which then takes one step.
            start, end = self._around_number
            low, high = self._bounds
            numbers = cast("Sequence[int]", columns[0])
            if low <= min(numbers) and max(numbers) <= high:
                # Joined and split again, as that makes a hundred keys in the time that formatting makes fifty.
                joined = start + f"{end}\n{start}".join(map(str, numbers)) + end
                return list(joined.encode().split(b"\n"))
        if not columns:
            return [self.encode(())] * row_count
        return [self.encode(values) for values in zip(*columns, strict=True)]


def too_large(names: Sequence[str], size_bytes: int) -> TooLarge:
    """Returns the error for an encoded key of more than `REDIS_KEY_BYTES_MAX` bytes."""
    return TooLarge(
        f"entity key over {tuple(names)!r} takes {size_bytes} bytes, at most {REDIS_KEY_BYTES_MAX} are allowed"
    )


def encode_value(name: str, type_name: str, value: KeyValue) -> bytes:
    """Returns what stands in a key for one value.

    Raises:
        WrongType: it does not fit the declared type.
    """
    if type_name in INT_TYPES:
        if type(value) is int:
            low, high = _INT_BOUNDS[type_name]
            if low <= value <= high:
                return b"i%d," % value
    elif type_name in TEXT_TYPES:
        if type(value) is str:
            raw = _utf8(name, value)
            return b"s%d:%s" % (len(raw), raw)
    elif type_name == "BYTES":
        if type(value) is bytes:
            return b"b%d:%s" % (len(value), value)
    elif type_name == "BOOL":
        if type(value) is bool:
            return b"?1" if value else b"?0"
    elif type_name in FLOAT_TYPES and type(value) in (float, int):
        number = float(value)
        if type_name == "FLOAT" and abs(number) <= _FLOAT_MAX:
            # A stored key was rounded to 32 bits by Feast; the one asked for has to be as well.
            number = float(struct.unpack(">f", struct.pack(">f", number))[0])
        # Adding 0.0 turns -0.0 into 0.0, which compares equal and so must be the same key.
        return b"f" + struct.pack(">d", number + 0.0).hex().encode()
    raise WrongType(
        f"join key {name!r}: value {shown(value)} ({type(value).__name__}) does not fit the declared type {type_name}; "
        "send it in that type or correct the entity's value_type"
    )


def _utf8(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise WrongType(f"join key {name!r}: value {shown(value)} is not valid Unicode text; correct it") from error


def split_entity_key(project: str, key: bytes) -> dict[str, bytes] | None:
    """Returns the encoded value of each join key that an entity key holds; None if it is no entity key of the project.

    The inverse of `EntityKeyEncoder.encode`: what `encode_value` gave for each join key, by its name.
    """
    found = _split(project, key)
    return found[0] if found is not None and found[1] == len(key) else None


class TilesKey(NamedTuple):
    """The Redis key of some tiles, taken apart.

    Attributes:
        entity_key: of whose events they are.
        view: of which windowed view.
        generation: of a materialization; None for what the stream makes.
    """

    entity_key: bytes
    view: str
    generation: int | None


def split_tiles_key(project: str, key: bytes) -> TilesKey | None:
    """Returns what a key of tiles says; None if it is none of the project."""
    if not key.endswith(_TILES_END) or (found := _split(project, key)) is None:
        return None
    entity_key, kind, rest = key[: found[1]], key[found[1] : found[1] + 1], key[found[1] + 1 : -len(_TILES_END)]
    if kind == b"b":
        generation = position = 0
        while position < len(rest):
            generation = generation << 7 | rest[position] & 127
            position += 1
            if rest[position - 1] < 128:
                return TilesKey(entity_key, rest[position:].decode(), generation)
    if kind == b"s" and len(rest) > _FINGERPRINT_DIGITS:
        return TilesKey(entity_key, rest[_FINGERPRINT_DIGITS:].decode(), None)
    return None


def _split(project: str, key: bytes) -> tuple[dict[str, bytes], int] | None:
    """Returns the encoded values of the entity key that a key begins with, and where it ends; None without one."""
    head = project_prefix(project) + b"{"
    if not key.startswith(head):
        return None
    position = len(head)
    if key[position : position + 3] == b"0:}":
        return {}, position + 3
    parts: dict[str, bytes] = {}
    try:
        while key[position] != _BRACE:
            name, position = _sized(key, position)
            value_start, position = position, _value_end(key, position)
            parts[name.decode()] = key[value_start:position]
    except (ValueError, IndexError):
        return None
    return (parts, position + 1) if parts else None


def _sized(key: bytes, start: int) -> tuple[bytes, int]:
    """Returns what stands behind a length at `start`, and where it ends."""
    colon = key.index(b":", start)
    end = colon + 1 + int(key[start:colon])
    return key[colon + 1 : end], end


def _value_end(key: bytes, start: int) -> int:
    kind = key[start : start + 1]
    if kind == b"i":
        return key.index(b",", start) + 1
    if kind in (b"s", b"b"):
        return _sized(key, start + 1)[1]
    if kind not in (b"?", b"f"):
        raise ValueError(kind)
    return start + (2 if kind == b"?" else 17)


@lru_cache(maxsize=_NAMES_MAX)
def views_key(project: str) -> bytes:
    """Returns the Redis key of the hash that holds what Larder knows of each view of a project."""
    return project_prefix(project) + b"views:%d" % _NAMES_VERSION


@lru_cache(maxsize=_NAMES_MAX)
def generation_field(view: str) -> bytes:
    """Returns the field of the views hash that says which generation of a view is read, and which is being built."""
    return b"generation:" + view.encode()


def counter_field(view: str) -> bytes:
    """Returns the field of the views hash that counts the generations of a view, so that no number comes twice."""
    return b"counter:" + view.encode()


def state_field(view: str) -> bytes:
    """Returns the field of the views hash that says which definition a view's rows follow and what they cover."""
    return b"state:" + view.encode()


def layouts_key(project: str) -> bytes:
    """Returns the Redis key of the hash that maps a schema tag to its row layout."""
    return project_prefix(project) + b"layouts:%d" % _NAMES_VERSION


def lease_key(project: str, view: str) -> bytes:
    """Returns the Redis key of the lease that one materialization of a view holds."""
    raw = view.encode()
    return project_prefix(project) + b"lease:%d:%s" % (len(raw), raw)


@lru_cache(maxsize=_NAMES_MAX)
def row_field(view: str, generation: int) -> bytes:
    """Returns the hash field that holds a view's row in one generation: its number, then the view's name.

    The number takes one byte as long as it is below 128: seven bits a byte, the highest first, all but the last one
    with the eighth bit set. Each key holds this name, so its length counts.
    """
    number = [generation & 127]
    while generation := generation >> 7:
        number.append(generation & 127 | 128)
    return bytes(reversed(number)) + view.encode()


@lru_cache(maxsize=_NAMES_MAX)
def newest_key(project: str) -> bytes:
    """Returns the Redis key of the sorted set that holds the newest event time of what is stored of each view.

    Its members are `row_field` of a view's generation, and `stream_member` of what the stream makes.
    """
    return project_prefix(project) + b"newest"


def stream_member(view: str, fingerprint: str) -> bytes:
    """Returns the name under which the newest event of a windowed view's stream tiles is kept.

    No `row_field` begins with its zero, since the first generation has the number 1.
    """
    return b"\0" + fingerprint.encode() + view.encode()


def is_stream_member(member: bytes, view: str) -> bool:
    """Whether a name is a `stream_member` of a view, of any definition."""
    return member[:1] == b"\0" and member[1 + _FINGERPRINT_DIGITS :] == view.encode()


def entity_keys_pattern(project: str) -> bytes:
    """Returns the SCAN pattern that matches the entity keys of a project and nothing else."""
    return _escaped(project_prefix(project)) + b"{*"


def project_pattern(project: str) -> bytes:
    """Returns the SCAN pattern that matches every key of a project and nothing else."""
    return _escaped(project_prefix(project)) + b"*"


def _escaped(prefix: bytes) -> bytes:
    """Returns bytes with the special characters of Redis patterns taken literally."""
    return b"".join(b"\\" + bytes((c,)) if c in b"*?[]\\^-" else bytes((c,)) for c in prefix)


def batch_tiles_key(entity_key: bytes, view: str, generation: int) -> bytes:
    """Returns the Redis key of the tiles that a materialization made of a windowed view's events for one entity key."""
    return entity_key + b"b" + row_field(view, generation) + _TILES_END


def stream_tiles_key(entity_key: bytes, view: str, fingerprint: str) -> bytes:
    """Returns the Redis key of the tiles that the stream makes of a windowed view's events for one entity key.

    The letter before the fingerprint stands for the form of the entries: another form takes another letter.

    Args:
        fingerprint: of the definition by which they are made: another definition has other tiles.
    """
    return entity_key + b"s" + fingerprint.encode() + view.encode() + _TILES_END


# --- the event log ------------------------------------------------------------------------------
# No entity key begins like these: it has a brace right behind the project.


@lru_cache(maxsize=_NAMES_MAX)
def stream_key(project: str) -> bytes:
    """Returns the Redis key of the hash that says how many partitions the event log of a project has."""
    return project_prefix(project) + b"stream"


@lru_cache(maxsize=_NAMES_MAX)
def schemas_key(project: str) -> bytes:
    """Returns the Redis key of the hash that maps the tag of a schema to the columns of logged rows."""
    return project_prefix(project) + b"schemas"


@lru_cache(maxsize=_NAMES_MAX)
def partition_log_key(project: str, partition: int) -> bytes:
    """Returns the Redis key of the stream that is one partition of the event log."""
    return project_prefix(project) + b"log:{%d}" % partition


@lru_cache(maxsize=_NAMES_MAX)
def partition_state_key(project: str, partition: int) -> bytes:
    """Returns the Redis key of the hash that holds the state of a partition, in the slot of its log."""
    return project_prefix(project) + b"partition:{%d}" % partition


def partition_pushes_key(project: str, partition: int, unit: int) -> bytes:
    """Returns the Redis key of the names of pushes that came to a partition in one unit of time since the epoch."""
    return project_prefix(project) + b"pushes:{%d}:%d" % (partition, unit)


def owner_key(project: str, task: str) -> bytes:
    """Returns the Redis key of the lease on a task of the stream: a partition by its number, or a feed by its name."""
    return project_prefix(project) + b"owner:{%s}" % task.encode()


def feed_state_key(project: str, feed: str) -> bytes:
    """Returns the Redis key of the hash that holds the token of a feed's owner, in the slot of its lease."""
    return project_prefix(project) + b"feed:{%s}" % feed.encode()


@lru_cache(maxsize=_NAMES_MAX)
def workers_key(project: str) -> bytes:
    """Returns the Redis key of the set of a project's workers."""
    return project_prefix(project) + b"workers"


def worker_key(project: str, worker: str) -> bytes:
    """Returns the Redis key that is there as long as a worker lives."""
    return project_prefix(project) + b"worker:" + worker.encode()


@lru_cache(maxsize=_NAMES_MAX)
def inbox_key(project: str, push_source: str) -> bytes:
    """Returns the Redis key of the stream onto which anyone may put rows for a push source."""
    return project_prefix(project) + b"inbox:" + push_source.encode()


@lru_cache(maxsize=_NAMES_MAX)
def dead_letters_key(project: str) -> bytes:
    """Returns the Redis key of the stream of rows that did not fit, with the reason."""
    return project_prefix(project) + b"dead:{letters}"


@lru_cache(maxsize=_NAMES_MAX)
def dead_states_key(project: str) -> bytes:
    """Returns the Redis key of the hash that says what became of each dead letter, by where its row came from."""
    return project_prefix(project) + b"dead:states:{letters}"
