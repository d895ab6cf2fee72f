"""Instants as columns of integers, compared at the finest unit that either side has."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Truths = npt.NDArray[np.bool_]

NO_ROW = -1
"""The position of an entity row without an answer; the code of one with a null in its key or time."""

NO_TIME_US = int(np.iinfo(np.int64).min)
"""Stands for a null created time: older than any."""


@dataclass(frozen=True, slots=True)
class Instants:
    """Instants as floor microseconds since the Unix epoch and, where nanoseconds play a part, those left (0..999)."""

    us: Ints
    ns: Ints | None = None

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.us)

    @property
    def columns(self) -> tuple[Ints, ...]:
        """Returns them as columns that compare as the instants do: the first decides, then the next."""
        return (self.us,) if self.ns is None else (self.us, self.ns)

    def taken(self, places: Ints | Truths | slice) -> "Instants":
        """Returns the instants at some places, in that order."""
        return Instants(self.us[places], None if self.ns is None else self.ns[places])

    def is_after(self, other: "Instants") -> Truths:
        """Returns for each pair whether the first is later."""
        later: Truths = self.us > other.us
        if self.ns is not None and other.ns is not None:
            later |= (self.us == other.us) & (self.ns > other.ns)
        return later

    def or_later(self, other: "Instants") -> "Instants":
        """Returns of each pair the later one."""
        later = other.is_after(self)
        ns = None if self.ns is None or other.ns is None else np.where(later, other.ns, self.ns)
        return Instants(np.where(later, other.us, self.us), ns)
