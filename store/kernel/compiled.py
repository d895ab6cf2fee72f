"""Loops over arrays, compiled to machine code when they are first called."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Returns a function of numbers and NumPy arrays, compiled; it runs without Python's global lock.

    The machine code is kept beside the module, else in the user's cache folder or where NUMBA_CACHE_DIR says. Where
    neither can be written, each process compiles anew, which takes about a second a function.
    """
    try:
        return cast("Callable[_P, _R]", numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:
        # So Numba says that it found no folder to write to.
        return cast("Callable[_P, _R]", numba.njit(nogil=True)(function))
