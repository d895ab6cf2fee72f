"""Training sets that are kept, whole or not at all: as a Parquet file at a path, or in a folder of its own."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists

from store.errors import OutOfSpace
from store.files import is_disk_full, publish
from store.offline.digest import TableDigest
from store.offline.manifest import MANIFEST_KEY, TRAINING_SET_FILE, manifest_of


class DescribedBatches:
    """Batches of one schema that can be taken once, and the manifest of what was taken."""

    def __init__(self, inputs: dict[str, Any], batches: Iterator[pa.RecordBatch]) -> None:
        """Keeps what the rows are made of.

        Args:
            batches: at least one, if an empty one.
        """
        self._inputs = inputs
        self._batches = batches
        self._schema = pa.schema([])
        self._digest: TableDigest | None = None
        self._row_count = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yields the batches."""
        for batch in self._batches:
            if self._digest is None:
                self._schema, self._digest = batch.schema, TableDigest(batch.schema)
            self._digest.add(batch)
            self._row_count += batch.num_rows
            yield batch

    def manifest(self) -> dict[str, Any]:
        """Returns the manifest of all batches so far."""
        assert self._digest is not None, "an answer has at least one batch"
        return manifest_of(self._inputs, self._schema, self._row_count, self._digest.hexdigest())


def parquet_location(path: Path, *, allow_overwrite: bool) -> Path:
    """Returns the file that a training set saved to a path is: the path itself, or one in the folder that is there.

    Raises:
        SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or the folder holds others.
    """
    is_folder = path.is_dir()
    target = path / TRAINING_SET_FILE if is_folder else path
    is_shared = is_folder and any(not _is_own(entry) for entry in path.iterdir())
    if is_shared or (target.exists() and not allow_overwrite):
        raise SavedDatasetLocationAlreadyExists(location=str(path))
    return target


def _is_own(entry: Path) -> bool:
    """Whether an entry of a folder is its training set, or a scratch file that a killed run left."""
    return (entry.name == TRAINING_SET_FILE and entry.is_file()) or entry.name.startswith(f".{TRAINING_SET_FILE}.")


def save_as_parquet(path: Path, batches: DescribedBatches, *, allow_overwrite: bool) -> dict[str, Any]:
    """Writes batches as a Parquet file at a path, or in the folder there, and returns its manifest.

    Raises:
        SavedDatasetLocationAlreadyExists: the file is there and may not be overwritten, or the folder holds others.
        OutOfSpace: no room; an earlier file then stays as it was.
    """
    return write_file(parquet_location(path, allow_overwrite=allow_overwrite), iter(batches), batches.manifest)


def write_file(path: Path, batches: Iterator[pa.RecordBatch], manifest: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Writes batches of one schema as a Parquet file, under its final name only when it is whole and synced.

    Args:
        manifest: asked when the last batch was taken; its answer comes into the footer, and is returned.

    Raises:
        OutOfSpace: no room; nothing half-written stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    scratch = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            written = _write_batches(file, batches, manifest)
            file.flush()
            os.fsync(file.fileno())
        # A scratch file is private; the finished one has the permissions that any new file would have.
        scratch.chmod(0o666 & ~_umask())
        publish(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if is_disk_full(error):
            raise OutOfSpace(f"no room to write {str(path)!r}; free some, nothing was written") from error
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return written


def _write_batches(
    file: Any, batches: Iterator[pa.RecordBatch], manifest: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    first = next(batches)
    with pq.ParquetWriter(file, first.schema) as writer:
        batch: pa.RecordBatch | None = first
        while batch is not None:
            writer.write_batch(batch)
            batch = next(batches, None)
        written = manifest()
        writer.add_key_value_metadata({MANIFEST_KEY: json.dumps(written)})
    return written


def _umask() -> int:
    """Returns the process's file mode mask without changing it (the only portable call would, for a moment)."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
