"""Random plain values of every type that the row codec stores."""

from hypothesis import strategies as st

from store.kernel.definitions import Column

_SCALARS = {
    "INT32": st.integers(-(2**31), 2**31 - 1),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UNIX_TIMESTAMP": st.integers(-(2**62), 2**62),
    "DOUBLE": st.floats(),
    "FLOAT": st.floats(width=32),
    "BOOL": st.booleans(),
    "STRING": st.text(),
    "JSON": st.text(),
    "UUID": st.text(),
    "DECIMAL": st.text(),
    "BYTES": st.binary(max_size=400),
}
_OPAQUE = dict.fromkeys(("MAP", "STRUCT", "VALUE_LIST", "ZONED_TIMESTAMP"), st.binary(max_size=400))
_LISTS = {
    f"{name}_{kind}": st.lists(values, max_size=5) for name, values in _SCALARS.items() for kind in ("LIST", "SET")
}
VALUES = _SCALARS | _OPAQUE | _LISTS

names = st.text(min_size=1, max_size=8)
columns = st.lists(
    st.builds(Column, names, st.sampled_from(sorted(VALUES))), max_size=12, unique_by=lambda column: column.name
)


@st.composite
def rows(draw: st.DrawFn, declared: list[Column]) -> dict[str, object]:
    """A row of plain values or None, by feature name."""
    return {column.name: draw(st.none() | VALUES[column.type_name]) for column in declared}
