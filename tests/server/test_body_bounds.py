import pyarrow as pa
import pytest

from server.body_bounds import check_instants
from store.errors import WrongType

FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        (pa.timestamp("s"), FIRST_S, LAST_S),
        (pa.timestamp("ms", "UTC"), FIRST_S * 1_000, LAST_S * 1_000 + 999),
        (pa.timestamp("us", "America/New_York"), FIRST_S * 1_000_000, LAST_S * 1_000_000 + 999_999),
        (pa.date32(), FIRST_S // 86_400, LAST_S // 86_400),
        (pa.date64(), FIRST_S * 1_000, (LAST_S // 86_400) * 86_400_000),
    ],
)
def test_years_1_to_9999_are_legal_and_no_others(kind: pa.DataType, first: int, last: int) -> None:
    bits = pa.int32() if kind.bit_width == 32 else pa.int64()
    step = 86_400_000 if kind == pa.date64() else 1
    check_instants(pa.table({"when": pa.array([first, None, last], bits).cast(kind)}), "body")
    for beyond in (first - step, last + step):
        column = pa.array([None, first, beyond], bits).cast(kind)
        with pytest.raises(WrongType, match=f"body: column 'when', row 2: {beyond}"):
            check_instants(pa.table({"when": column}), "body")


def test_nanoseconds_and_empty_columns_have_nothing_to_check() -> None:
    check_instants(pa.table({"ns": pa.array([2**63 - 1], pa.timestamp("ns"))}), "body")
    check_instants(pa.table({"when": pa.array([], pa.timestamp("us")), "none": pa.nulls(0)}), "body")
