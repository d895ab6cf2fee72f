"""The loops of profiling, compiled: over the numbers and texts of one batch.

Importing this takes half a second and 90 MB, so `profiling` does it when the first profile begins.

Source: the hashes are those of Apache DataSketches, so that its sketches of the same values are the same bytes: the
first 64 bits of MurmurHash3 x64 128 (Appleby) with seed 9001, shifted right by one. CRC-32 as in `zlib`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from store.kernel.compiled import compiled
from store.kernel.histograms import SHIFT
from store.kernel.instants import Floats, Ints

Bytes = npt.NDArray[np.uint8]
Table = npt.NDArray[np.int64]
Word = Any
"""An unsigned integer of 64 bits whose sums and products wrap around, as only compiled code has it."""

MAGNITUDE = 2**63 - 1
"""All bits of a double but its sign."""
INFINITE = 0x7FF << 52
_SEED = np.uint64(9_001)
_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_M1, _M2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_ADD1, _ADD2, _FIVE = np.uint64(0x52DCE729), np.uint64(0x38495AB5), np.uint64(5)
_S1, _S8, _S27, _S31, _S33, _S64 = (np.uint64(each) for each in (1, 8, 27, 31, 33, 64))


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1).astype(np.uint32)
    return table


_CRC_TABLE = _crc_table()


# --- numbers ------------------------------------------------------------------------------------


@compiled
def count_buckets(bits: Ints, begin: int, counts: Table, first: int, unusual: Ints) -> int:
    """Counts doubles by their buckets, and returns how many were taken before one is in none that there is room for.

    Args:
        bits: the doubles, as integers.
        counts: of positive numbers and of negative ones, by the magnitudes of their buckets' numbers, from `first` on;
            added to. Signs alternate at random, so they are an index here and not a branch.
        unusual: how many are NaN, positive infinities, negative ones, and zeros; added to.
    """
    width = counts.shape[1]
    for row in range(begin, len(bits)):
        each = bits[row]
        magnitude = each & MAGNITUDE
        if magnitude == 0:
            unusual[3] += 1
        elif magnitude > INFINITE:
            unusual[0] += 1
        elif magnitude == INFINITE:
            unusual[1 if each > 0 else 2] += 1
        else:
            place = (magnitude >> SHIFT) + 1 - first
            if place < 0 or place >= width:
                return row
            counts[(each >> 63) & 1, place] += 1
    return len(bits)


@compiled
def sum_floats(values: Floats, shift: float) -> tuple[int, float, float, float, float, bool]:
    """Sums finite numbers up.

    Returns:
        How many there are, the least and greatest, the sum of their differences to a shift and that of the squares of
        these, whether all are integers.
    """
    finite, least, greatest, total, squares, is_integral = 0, np.inf, -np.inf, 0.0, 0.0, True
    for value in values:
        if not np.isfinite(value):
            continue
        finite += 1
        least, greatest = min(least, value), max(greatest, value)
        gap = value - shift
        total += gap
        squares += gap * gap
        if is_integral and value != np.floor(value):
            is_integral = False
    return finite, least, greatest, total, squares, is_integral


@compiled
def square_floats(values: Floats, mean: float) -> float:
    """Returns the sum of the squared differences of the finite numbers to a mean."""
    total = 0.0
    for value in values:
        if np.isfinite(value):
            gap = value - mean
            total += gap * gap
    return total


@compiled
def _gap(value: int, base: int) -> float:
    """Returns the difference of two integers of 64 bits, signed or not, which need not fit into 64 bits."""
    if value >= base:
        return float(np.uint64(value) - np.uint64(base))
    return -float(np.uint64(base) - np.uint64(value))


@compiled
def sum_integers(values: Ints, base: int) -> tuple[int, int, float]:
    """Returns the least and greatest of at least one integer, and the sum of their differences to a base."""
    least = greatest = values[0]
    total = 0.0
    for value in values:
        least, greatest = min(least, value), max(greatest, value)
        total += _gap(value, base)
    return least, greatest, total


@compiled
def square_integers(values: Ints, base: int, mean: float) -> float:
    """Returns the sum of the squared differences of integers to a mean, which is given by its difference to a base."""
    total = 0.0
    for value in values:
        gap = _gap(value, base) - mean
        total += gap * gap
    return total


# --- distinct values ----------------------------------------------------------------------------


@compiled
def _rotated(word: Word, by: Word) -> Word:
    return (word << by) | (word >> (_S64 - by))


@compiled
def _mixed(word: Word) -> Word:
    word ^= word >> _S33
    word *= _M1
    word ^= word >> _S33
    word *= _M2
    return word ^ (word >> _S33)


@compiled
def _first_part(word: Word) -> Word:
    return _rotated(word * _C1, _S31) * _C2


@compiled
def _second_part(word: Word) -> Word:
    return _rotated(word * _C2, _S33) * _C1


@compiled
def _finished(first: Word, second: Word, length: int) -> Any:
    first ^= np.uint64(length)
    second ^= np.uint64(length)
    first += second
    second += first
    first, second = _mixed(first), _mixed(second)
    return np.int64((first + second) >> _S1)


@compiled
def hash_of_word(word: Any) -> Any:
    """Returns the hash of eight bytes, given as an integer."""
    return _finished(_SEED ^ _first_part(np.uint64(word)), _SEED, 8)


@compiled
def add_distinct(values: Ints, kinds: Bytes, kind: Any, begin: int, table: Table, state: Ints) -> int:
    """Adds values to those whose hashes are the least, and returns how many were taken before the table was full.

    Args:
        values: integers (kind 0) or bits of doubles (kind 1); `kinds` has one for each, or is empty if all have `kind`.
        table: per slot hash (0 where it is free), value and kind; a power of two of slots.
        state: how many slots are taken, how many may be, the hash above which none is wanted, and the bits of a slot.
    """
    mask = table.shape[0] - 1
    shift = np.uint64(64 - state[3])
    has_kinds = len(kinds) > 0
    # As long as every value is wanted, most are in the table, and its slots follow from a product: so these few
    # values are hashed once each.
    is_exact = state[2] == MAGNITUDE
    for row in range(begin, len(values)):
        value = values[row]
        if has_kinds:
            kind = np.int64(kinds[row])
        hashed: Any = 0
        if not is_exact:
            hashed = hash_of_word(value)
            if hashed > state[2]:
                continue
        slot = np.int64((np.uint64(value) * _C1) >> shift)
        while table[slot, 0] != 0 and (table[slot, 1] != value or table[slot, 2] != kind):
            slot = (slot + 1) & mask
        if table[slot, 0] != 0:
            continue
        if state[0] == state[1]:
            return row
        if is_exact:
            hashed = hash_of_word(value)
        # A hash of 0 is none to the library either.
        if hashed != 0:
            table[slot, 0], table[slot, 1], table[slot, 2] = hashed, value, kind
            state[0] += 1
    return len(values)


# --- texts --------------------------------------------------------------------------------------


@compiled
def _word(content: Bytes, begin: int, end: int) -> Word:
    """Returns up to eight bytes as an integer, the first one lowest."""
    word = np.uint64(0)
    for place in range(end - 1, begin - 1, -1):
        word = (word << _S8) | np.uint64(content[place])
    return word


@compiled
def hash_texts(offsets: Ints, content: Bytes, hashes: Ints) -> None:
    """Makes the hashes of texts, given as the bytes between offsets."""
    for row in range(len(hashes)):
        begin, end = offsets[row], offsets[row + 1]
        first = second = _SEED
        place = begin
        while end - place >= 16:
            first ^= _first_part(_word(content, place, place + 8))
            first = (_rotated(first, _S27) + second) * _FIVE + _ADD1
            second ^= _second_part(_word(content, place + 8, place + 16))
            second = (_rotated(second, _S31) + first) * _FIVE + _ADD2
            place += 16
        if end - place > 8:
            second ^= _second_part(_word(content, place + 8, end))
        if end > place:
            first ^= _first_part(_word(content, place, min(place + 8, end)))
        hashes[row] = _finished(first, second, end - begin)


@compiled
def add_groups(offsets: Ints, content: Bytes, weights: Ints, bytes_max: int, groups: Ints) -> None:
    """Adds weights to the groups that texts of at most so many bytes are in, by their CRC-32."""
    for row in range(len(weights)):
        begin, end = offsets[row], offsets[row + 1]
        if end - begin > bytes_max:
            continue
        checksum = np.uint32(0xFFFFFFFF)
        for place in range(begin, end):
            checksum = _CRC_TABLE[(checksum ^ content[place]) & 0xFF] ^ (checksum >> np.uint32(8))
        groups[(checksum ^ np.uint32(0xFFFFFFFF)) % len(groups)] += weights[row]
