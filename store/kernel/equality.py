"""When two values of a feature count as the same: exactly, but for floats, which may be summed in another order."""

import math
from typing import Any, Final

FLOAT_TOLERANCE: Final = 1e-9
"""Of floats, relative to the larger of the two and of 1. Source: section 3.6 of the design."""


def are_equal(left: Any, right: Any) -> bool:
    """Whether two plain values are equal; floats within the tolerance, a NaN is equal to a NaN, a null to a null."""
    if type(left) is float and type(right) is float:
        if math.isfinite(left) and math.isfinite(right):
            return abs(left - right) <= FLOAT_TOLERANCE * max(1.0, abs(left), abs(right))
        return left == right or (math.isnan(left) and math.isnan(right))
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(are_equal, left, right))
    return type(left) is type(right) and bool(left == right)
