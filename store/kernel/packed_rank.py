"""What ranks the rows of a key, as one number: event time, created time and position side by side in 128 bits.

The greatest such number of a key is that of its newest row, so one scan and one `max` find it. Each part has as many
bits as what the footers of the files say needs; where they do not tell, or it is too many, there is no such number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from store.kernel.source_scan import NANOSECONDS_PER_US, ROW_BITS, EventRange, Scan

_BITS_MAX = 128


@dataclass(frozen=True, slots=True)
class PackedRank:
    """The parts of the number, from the highest bits: event time, created time, number of the file, row in it.

    Units: instants are nanoseconds if `is_ns`, else microseconds; each counts from its least one, a created time from
    1, as 0 stands for none.
    """

    is_ns: bool
    event_low: int
    created_low: int
    created_bits: int
    file_bits: int
    row_bits: int

    @classmethod
    def of(cls, scan: Scan) -> "PackedRank | None":
        """Returns how the rows of a scan are ranked by a number, None if they cannot be."""
        event = _hull([known for group in scan.groups for known in group.event_ranges])
        created = (
            _hull([known for group in scan.groups for known in group.created_ranges]) if scan.has_created else (0, 0)
        )
        if event is None or created is None:
            return None
        unit = NANOSECONDS_PER_US if scan.is_ns else 1
        event_low, created_low = event[0] * unit, created[0] * unit
        # A time in nanoseconds may lie up to 999 of them after its microsecond; 1 more, as created times count from 1.
        event_bits, created_bits = (((high - low + 1) * unit).bit_length() for low, high in (event, created))
        file_bits = max((position for group in scan.groups for position in group.positions), default=0).bit_length()
        row_bits = max((rows for group in scan.groups for rows in group.rows), default=0).bit_length()
        rank = cls(scan.is_ns, event_low, created_low, created_bits * scan.has_created, file_bits, row_bits)
        return rank if event_bits + rank._event_shift <= _BITS_MAX else None

    def packed(self) -> str:
        """Returns the SQL of the number of a row, from its columns `e`, `c` and `ptr`."""
        position = f"((ptr >> {ROW_BITS}) << {self.row_bits}) | (ptr & {2**ROW_BITS - 1})" if self.file_bits else "ptr"
        parts = [f"(CAST(e - ({self.event_low}) AS UHUGEINT) << {self._event_shift})", f"CAST({position} AS UHUGEINT)"]
        if self.created_bits:
            created = f"CAST(coalesce(c - ({self.created_low}) + 1, 0) AS UHUGEINT)"
            parts.append(f"({created} << {self._created_shift})")
        return " | ".join(parts)

    def unpacked(self, number: str) -> str:
        """Returns the SQL of the columns `e`, `c` (where there is one) and `ptr` of a number."""
        kind = "HUGEINT" if self.is_ns else "BIGINT"
        columns = [f"CAST({number} >> {self._event_shift} AS {kind}) + ({self.event_low}) AS e"]
        if self.created_bits:
            created = f"CAST({_low_bits(f'({number} >> {self._created_shift})', self.created_bits)} AS {kind})"
            columns.append(f"nullif({created}, 0) - 1 + ({self.created_low}) AS c")
        row = f"CAST({_low_bits(number, self.row_bits)} AS BIGINT)"
        if self.file_bits:
            file = f"CAST({_low_bits(f'({number} >> {self.row_bits})', self.file_bits)} AS BIGINT)"
            row = f"({file} << {ROW_BITS}) + {row}"
        return ", ".join([*columns, f"{row} AS ptr"])

    @property
    def _created_shift(self) -> int:
        return self.file_bits + self.row_bits

    @property
    def _event_shift(self) -> int:
        return self._created_shift + self.created_bits


def _low_bits(number: str, bits: int) -> str:
    return f"({number} & CAST({2**bits - 1} AS UHUGEINT))"


def _hull(ranges: Sequence[EventRange | None]) -> tuple[int, int] | None:
    """Returns the least and the greatest instant of some files; None if one of them does not tell its own."""
    known = [one for one in ranges if one is not None]
    if len(known) < len(ranges):
        return None
    timed = [one for one in known if one.low_us <= one.high_us]
    return min((one.low_us for one in timed), default=0), max((one.high_us for one in timed), default=0)
