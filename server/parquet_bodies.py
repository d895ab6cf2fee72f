"""Parquet files that strangers send. A footer says how large the pages are, and pages may hold a value a billion times.

So the footer is checked first, then what was decoded is counted batch by batch; the last wall is the bound on memory
of the process that does this.
"""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from server.body_bounds import check_schema, check_size, without_dictionaries
from server.limits import PARQUET_BODY_BATCH_ROWS
from store.errors import BadBody

_WHAT = "body: Parquet"


def entity_rows_of_parquet(body: Any) -> pa.Table:
    """Returns the table in a Parquet file, its dictionary columns decoded.

    Args:
        body: bytes or any other buffer.

    Raises:
        BadBody: not such a file, or one that is damaged.
        TooLarge: more columns, rows or decoded bytes than the bounds allow.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(pa.py_buffer(body)), memory_map=False, pre_buffer=False) as file:
            check_schema(file.schema_arrow, _WHAT)
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            check_size(file.metadata.num_rows, sum(max(group.total_byte_size, 0) for group in groups), _WHAT)
            table = _decoded(file)
        return without_dictionaries(table, _WHAT)
    except MemoryError:
        # Arrow's own is also an ArrowException; the bound on memory is told by whoever set it.
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadBody(f"{_WHAT}: cannot be read ({error}); write it with pyarrow.parquet.write_table") from error


def _decoded(file: pq.ParquetFile) -> pa.Table:
    batches = []
    row_count = decoded_bytes = 0
    for batch in file.iter_batches(batch_size=PARQUET_BODY_BATCH_ROWS, use_threads=False):
        row_count += batch.num_rows
        decoded_bytes += batch.nbytes
        check_size(row_count, decoded_bytes, _WHAT)
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)
