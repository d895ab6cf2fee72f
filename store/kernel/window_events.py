"""Events of windowed features as arrays of integers, and what the integers of a column mean.

Values are integers of 64 bits here: integers, truths and times as they are, floats by their bits, texts and bytes by a
number of their own. Which event is picked needs only their order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from store.kernel.instants import Floats, Instants, Ints, Truths
from store.kernel.sketches import hashes_of_numbers

_INT64 = np.iinfo(np.int64)


class Form(Enum):
    """What the integers are that stand for the values of a column."""

    FLOAT = auto()
    SIGNED = auto()
    UNSIGNED = auto()
    CODED = auto()


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column that is aggregated: what its integers mean.

    Attributes:
        name: what features call it by.
        ranks: of coded values, by code: integers in the order of the values; known once all events were seen.
        hashes: likewise their hashes.
        us_scale: of times, the microseconds of a unit, as numerator and denominator.
    """

    name: str
    form: Form
    ranks: Ints | None = None
    hashes: Ints | None = None
    us_scale: tuple[int, int] = (1, 1)

    def order(self, raw: Ints) -> Ints:
        """Returns integers in the order of the values."""
        if self.form is Form.FLOAT:
            # Of negative floats the greater bits are the lesser value.
            return raw ^ ((raw >> 63) & _INT64.max)
        if self.form is Form.UNSIGNED:
            return raw ^ _INT64.min
        if self.form is Form.CODED:
            assert self.ranks is not None
            return self.ranks[raw]
        return raw

    def hashed(self, raw: Ints) -> Ints:
        """Returns integers in the order of the values' hashes; `hash_at` has the hash of one."""
        if self.form is Form.CODED:
            assert self.hashes is not None
            return self.hashes[raw]
        numbers = raw.view(np.float64) if self.form is Form.FLOAT else raw
        if self.us_scale != (1, 1):
            numbers = numbers * self.us_scale[0] // self.us_scale[1]
        return ordered_hashes(hashes_of_numbers(numbers))

    def numbers(self, raw: Ints) -> Floats:
        """Returns the values as floats."""
        if self.form is Form.FLOAT:
            return raw.view(np.float64)
        return (raw.view(np.uint64) if self.form is Form.UNSIGNED else raw).astype(np.float64)


def ordered_hashes(hashes: np.ndarray[tuple[int, ...], np.dtype[np.uint64]]) -> Ints:
    """Returns hashes as signed integers in the same order."""
    return hashes.view(np.int64) ^ _INT64.min


def hash_at(ordered: int) -> int:
    """Returns the hash that `ordered_hashes` made an integer of."""
    return ordered + 2**63


@dataclass(frozen=True, slots=True)
class EventChunk:
    """Events, in any order, as arrays of one length.

    `codes` are the codes of their keys; `event` their event times, without nulls; `created` their created times
    (`NO_TIME_US` for a null), None where they play no part. `values` has the integers of each input column,
    `is_counted` which of them are neither null nor NaN, None for all.
    """

    codes: Ints
    event: Instants
    created: Instants | None
    values: tuple[Ints, ...]
    is_counted: tuple[Truths | None, ...]


@dataclass(frozen=True, slots=True)
class Events:
    """Events of one group of keys, as a search keeps them.

    `visible` is the instant from which each can be seen, None where that is its event time; `created_us` is None where
    created times decide nothing.
    """

    codes: Ints
    event_us: Ints
    visible: Ints | None
    created_us: Ints | None
    values: tuple[Ints, ...]
    is_counted: tuple[Truths | None, ...]

    @property
    def arrays(self) -> list[Ints | Truths | None]:
        """Returns all that they are made of, as `of` takes it."""
        return [self.codes, self.event_us, self.visible, self.created_us, *self.values, *self.is_counted]

    @classmethod
    def of(cls, arrays: Sequence[Ints | Truths | None]) -> "Events":
        """Returns the events whose `arrays` these are."""
        columns = (len(arrays) - 4) // 2
        return cls(*arrays[:4], tuple(arrays[4 : 4 + columns]), tuple(arrays[4 + columns :]))  # type: ignore[call-arg, arg-type]

    @classmethod
    def joined(cls, pieces: Sequence["Events"]) -> "Events":
        """Returns the events of at least one piece together."""
        if len(pieces) == 1:
            return pieces[0]
        joined: list[Ints | Truths | None] = []
        for arrays in zip(*(piece.arrays for piece in pieces), strict=True):
            if all(array is None for array in arrays):
                joined.append(None)
                continue
            # Only which values are counted is None in some pieces and not in others: there all of them are.
            filled = [
                np.ones(len(piece.codes), dtype=bool) if array is None else array
                for piece, array in zip(pieces, arrays, strict=True)
            ]
            joined.append(np.concatenate(filled))
        return cls.of(joined)

    @property
    def size_bytes(self) -> int:
        """Returns how much memory they take."""
        return sum(array.nbytes for array in self.arrays if array is not None)

    def taken(self, places: Ints) -> "Events":
        """Returns the events at some places."""
        return Events.of([None if array is None else array[places] for array in self.arrays])

    def part(self, start: int, end: int) -> "Events":
        """Returns the events from one place up to another."""
        return Events.of([None if array is None else array[start:end] for array in self.arrays])
