"""Sums over sliding windows, exact: compiled loops over numbers of any size.

A number is an integer times a power of two. All values of a column share the power of the finest of them, so that sums
are those of integers. A sum is kept in digits of 32 bits, each in an integer of 64: a value is added to three of them,
or taken away again, and no carry is passed on before the sum is asked for, which is safe for 2^31 events. Nothing is
rounded before the end, and then once: answers equal those of the algebra to the bit.

Source: the carry-save superaccumulators of Neal, "Fast exact summation using small and large superaccumulators" (2015).
"""

import math

import numpy as np

from store.kernel.compiled import compiled
from store.kernel.instants import Floats, Ints, Truths

FLOAT, SIGNED, UNSIGNED = 0, 1, 2
"""What the 64 bits of a value are."""

_DIGIT = 0xFFFFFFFF
_FRACTION = (1 << 52) - 1
_IMPLICIT = 1 << 52
EXPONENT = 0x7FF
"""The exponent of infinities; all others are less."""

_MAGNITUDE = (1 << 63) - 1
_INT64_MIN = -(1 << 63)
_BIAS = 1075
_POWER_MIN = -1074
"""The power of the least double; a float's exponent less the bias is the power of its last bit."""


def digits_of(span: int) -> int:
    """Returns how many digits a sum needs of values whose exponents differ by at most so much, carries included."""
    return (span + 64) // 32 + 3


def square_digits_of(span: int) -> int:
    """Returns how many digits a sum of squares of such values needs."""
    return (2 * span + 128) // 32 + 3


@compiled
def find_powers(values: Ints, found: Ints) -> None:
    """Finds the least and greatest exponent of floats given by their bits; infinities and zeros have none.

    Args:
        found: the two, changed where a value lies beyond.
    """
    for bits in values:
        exponent = max(1, (bits >> 52) & EXPONENT)
        if bits & _MAGNITUDE and exponent != EXPONENT:
            found[0] = min(found[0], exponent)
            found[1] = max(found[1], exponent)


@compiled
def carry(digits: Ints, count: int, carried: Ints) -> bool:
    """Writes a sum's digits as ones of 32 bits without a sign; returns whether the sum is negative."""
    over = 0
    for place in range(count):
        value = digits[place] + over
        carried[place] = value & _DIGIT
        over = value >> 32
    if over >= 0:
        return False
    over = 1
    for place in range(count):
        value = (carried[place] ^ _DIGIT) + over
        carried[place] = value & _DIGIT
        over = value >> 32
    return True


@compiled
def divide(digits: Ints, count: int, divisor: int) -> bool:
    """Divides a number by one below 2^31, in place; returns whether something is left."""
    left = 0
    for place in range(count - 1, -1, -1):
        value = (left << 32) | digits[place]
        digits[place] = value // divisor
        left = value % divisor
    return left != 0


@compiled
def bit_length(digits: Ints, count: int) -> int:
    """Returns how many bits a number has; 0 for zero."""
    for place in range(count - 1, -1, -1):
        digit = digits[place]
        if digit:
            bits = 0
            while digit:
                digit >>= 1
                bits += 1
            return 32 * place + bits
    return 0


@compiled
def rounded(digits: Ints, count: int, power: int, is_more: bool) -> float:
    """Returns a number times a power of two as the nearest double, of two that are as near the even one.

    Args:
        is_more: whether the number is greater than its digits say, by less than one.
    """
    length = bit_length(digits, count)
    if not length:
        return 0.0
    # The lowest bit that is kept: a double has 53, fewer where it is subnormal.
    lowest = max(length - 53, _POWER_MIN - power)
    if lowest <= 0:
        whole = 0
        for place in range((length + 31) // 32 - 1, -1, -1):
            whole = (whole << 32) | digits[place]
        return math.ldexp(float(whole), power)
    if lowest > length:
        return 0.0
    place, bits = lowest >> 5, lowest & 31
    kept = 0
    if place < count:
        kept = digits[place] >> bits
        if place + 1 < count:
            kept |= digits[place + 1] << (32 - bits)
        if bits and place + 2 < count:
            kept |= digits[place + 2] << (64 - bits)
    half = lowest - 1
    if (digits[half >> 5] >> (half & 31)) & 1:
        is_above = is_more or (digits[half >> 5] & ((1 << (half & 31)) - 1)) != 0
        place = (half >> 5) - 1
        while not is_above and place >= 0:
            is_above = digits[place] != 0
            place -= 1
        if is_above or kept & 1:
            kept += 1
    return math.ldexp(float(kept), lowest + power)


@compiled
def variance_of(total: Ints, total_count: int, squares: Ints, squares_count: int, values: int, power: int) -> float:
    """Returns the sample variance of at least two values from their sum and the sum of their squares.

    Args:
        total: digits of the sum, without a sign; `squares` likewise.
        power: of both, of the squares twice as much.
    """
    count = max(2 * total_count, squares_count) + 2
    spread = np.zeros(count + 4, dtype=np.int64)
    for place in range(squares_count):
        value = squares[place] * values
        spread[place + 4] += value & _DIGIT
        spread[place + 5] += value >> 32
    for one in range(total_count):
        if not total[one]:
            continue
        for other in range(total_count):
            product = np.uint64(total[one]) * np.uint64(total[other])
            spread[one + other + 4] -= np.int64(product & np.uint64(_DIGIT))
            spread[one + other + 5] -= np.int64(product >> np.uint64(32))
    carry(spread, count + 4, spread)
    is_more = divide(spread, count + 4, values)
    if divide(spread, count + 4, values - 1):
        is_more = True
    return rounded(spread, count + 4, 2 * power - 128, is_more)


@compiled
def slide_sums(  # noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917 - calls in a loop cost more than what they do
    asked_starts: Ints,
    comes: Ints,
    comes_ends: Ints,
    goes: Ints,
    goes_ends: Ints,
    counts: Ints,
    values: Ints,
    form: int,
    lowest: int,
    digits: int,
    square_digits: int,
    totals: Ints,
    sums: Floats,
    means: Floats,
    variances: Floats,
    is_beyond: Truths,
) -> None:
    """Makes for each entity row the sums of the events in its window, where there are any.

    Args:
        comes: see `move_events`, as the four after it.
        values: the bits of each event's value; `form` says of what.
        lowest: of floats, the exponent that all are counted from.
        digits: of a sum, `square_digits` of a sum of squares.
        totals: made the sums of integers; `is_beyond` those that do not fit.
        sums: made the sums as floats; `means` and `variances` likewise. An empty one is not wanted.
    """
    power = lowest - _BIAS if form == FLOAT else 0
    wants_squares = len(variances) > 0
    total, squares = np.zeros(digits, dtype=np.int64), np.zeros(square_digits, dtype=np.int64)
    carried, scaled = np.zeros(digits, dtype=np.int64), np.zeros(digits + 4, dtype=np.int64)
    carried_squares = np.zeros(square_digits, dtype=np.int64)
    came = went = 0
    for code in range(len(asked_starts) - 1):
        total[:] = 0
        squares[:] = 0
        plus = minus = 0
        for row in range(asked_starts[code], asked_starts[code + 1]):
            for is_going in range(2):
                moved = goes if is_going else comes
                first, last = (went, goes_ends[row]) if is_going else (came, comes_ends[row])
                for number in range(first, last):
                    bits = values[moved[number]]
                    is_negative = bits < 0 and form != UNSIGNED
                    shift = 0
                    if form == FLOAT:
                        exponent, size = (bits >> 52) & EXPONENT, bits & _FRACTION
                        if exponent == EXPONENT:
                            if is_negative:
                                minus += 1 - 2 * is_going
                            else:
                                plus += 1 - 2 * is_going
                            continue
                        if exponent:
                            size |= _IMPLICIT
                        elif not size:
                            continue
                        else:
                            exponent = 1
                        shift = exponent - lowest
                    else:
                        size = -bits if is_negative else bits
                    low, high = size & _DIGIT, (size >> 32) & _DIGIT
                    place, left = shift >> 5, shift & 31
                    shifted_low, shifted_high = low << left, high << left
                    if is_negative != (is_going == 1):
                        total[place] -= shifted_low & _DIGIT
                        total[place + 1] -= (shifted_low >> 32) + (shifted_high & _DIGIT)
                        total[place + 2] -= shifted_high >> 32
                    else:
                        total[place] += shifted_low & _DIGIT
                        total[place + 1] += (shifted_low >> 32) + (shifted_high & _DIGIT)
                        total[place + 2] += shifted_high >> 32
                    if wants_squares:
                        sign = 1 - 2 * is_going
                        small = np.uint64(low) * np.uint64(low)
                        mixed = np.uint64(low) * np.uint64(high)
                        large = np.uint64(high) * np.uint64(high)
                        carrying = np.int64(small >> np.uint64(32)) + 2 * np.int64(mixed & np.uint64(_DIGIT))
                        first_digit = np.int64(small & np.uint64(_DIGIT))
                        second_digit = carrying & _DIGIT
                        carrying = (
                            (carrying >> 32)
                            + 2 * np.int64(mixed >> np.uint64(32))
                            + np.int64(large & np.uint64(_DIGIT))
                        )
                        third_digit = carrying & _DIGIT
                        fourth_digit = (carrying >> 32) + np.int64(large >> np.uint64(32))
                        place, left = (2 * shift) >> 5, (2 * shift) & 31
                        squares[place] += sign * ((first_digit << left) & _DIGIT)
                        squares[place + 1] += sign * (((first_digit << left) >> 32) + ((second_digit << left) & _DIGIT))
                        squares[place + 2] += sign * (((second_digit << left) >> 32) + ((third_digit << left) & _DIGIT))
                        squares[place + 3] += sign * (((third_digit << left) >> 32) + ((fourth_digit << left) & _DIGIT))
                        squares[place + 4] += sign * ((fourth_digit << left) >> 32)
            came, went = comes_ends[row], goes_ends[row]
            count = counts[row]
            if not count:
                continue
            if plus or minus:
                infinite = math.nan if plus and minus else math.inf if plus else -math.inf
                if len(sums):
                    sums[row] = infinite
                if len(means):
                    means[row] = infinite
                if wants_squares:
                    variances[row] = math.nan
                continue
            is_negative = carry(total, digits, carried)
            if len(totals):
                length = bit_length(carried, digits)
                if length <= 63:
                    whole = (carried[1] << 32) | carried[0]
                    totals[row] = -whole if is_negative else whole
                elif is_negative and length == 64 and carried[1] == 0x80000000 and not carried[0]:
                    totals[row] = _INT64_MIN
                else:
                    is_beyond[row] = True
            if len(sums):
                value = rounded(carried, digits, power, False)
                sums[row] = -value if is_negative else value
            if len(means):
                scaled[:3] = 0
                for place in range(digits):
                    scaled[place + 3] = carried[place]
                is_more = divide(scaled, digits + 3, count)
                value = rounded(scaled, digits + 3, power - 96, is_more)
                means[row] = -value if is_negative else value
            if wants_squares and count > 1:
                carry(squares, square_digits, carried_squares)
                variances[row] = variance_of(carried, digits, carried_squares, square_digits, count, power)
