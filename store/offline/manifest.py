"""The manifest of a training set: what it was made of, and a digest that says whether two are the same.

It stands in the footer of the Parquet file that holds the training set, so neither can be lost without the other.
A training set that is a Delta table is one such file, too.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast.repo_config import RepoConfig

from store.definitions_from_feast import view_definition
from store.errors import SourceUnreadable, WrongType, shown
from store.offline.delta import read_delta
from store.offline.digest import has_digest
from store.offline.planned import Planned

MANIFEST_KEY = "larder.manifest"
"""The key of the manifest among the key-value metadata of a Parquet file."""

TRAINING_SET_FILE = "training_set.parquet"
"""The name of a training set that is saved into a folder."""

_FORMAT = "larder-training-set-1"
_PACKAGES = ("larder", "feast", "duckdb", "pyarrow", "pandas", "numpy")
_NS_PER_SECOND = 10**9


def inputs_of(
    config: RepoConfig,
    given: pa.Schema,
    histories: Sequence[Planned],
    on_demand: Sequence[Any],
    request: dict[str, Any],
) -> dict[str, Any]:
    """Returns what a training set is about to be made of: the manifest but for what only the rows can tell.

    Args:
        given: the entity rows' columns.
        request: what was asked for, as JSON can hold it.

    Raises:
        WrongType: a column of the entity rows that no training set can hold.
    """
    for column in given:
        if not has_digest(column.type):
            raise WrongType(
                f"entity column {column.name!r} has type {shown(str(column.type))}, which no Parquet file can hold; "
                "cast it, or leave it out"
            )
    sources = {history.source.path: history.source.declared_paths for history in histories}
    return {
        "format": _FORMAT,
        "project": config.project,
        **request,
        "views": [_view(config, history, number) for history in histories for number in range(len(history.parts))],
        "on_demand_views": [{"name": view.name, "fingerprint": _fingerprint(view)} for view in on_demand],
        "sources": [
            {"path": _shown(config, path), "files": [_file(config, file) for file in files]}
            for path, files in sources.items()
        ],
        "versions": {name: version(name) for name in _PACKAGES},
    }


def manifest_of(inputs: dict[str, Any], schema: pa.Schema, row_count: int, digest: str) -> dict[str, Any]:
    """Returns the manifest of a training set that was made of some inputs."""
    columns = [{"name": field.name, "type": str(field.type)} for field in schema]
    return inputs | {"columns": columns, "rows": row_count, "digest": digest}


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Returns the manifest of a saved training set.

    Two training sets with the same `digest` hold the same columns and rows in the same order; `views` and `sources`
    say what may have made a difference where they do not.

    Shapes: `digest` (32 hexadecimal digits), `rows`, `columns` (name, type), `features`, `views` (name, fingerprint of
    the definition, source), `on_demand_views`, `sources` (path, files with bytes and time of last change), `versions`.

    Args:
        path: of the Parquet file, of the folder that it was saved into, or of the Delta table.

    Raises:
        SourceUnreadable: the file cannot be read as Parquet, or has no manifest; or the Delta table cannot be read, or
            holds more than was saved.
        DefinitionError: it is a Delta table, and the `deltalake` package is missing.
    """
    path = _data_file(Path(path))
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(
            f"training set {str(path)!r} cannot be read as Parquet ({str(error).splitlines()[0]}); restore it"
        ) from error
    content = metadata.get(MANIFEST_KEY.encode())
    if content is None:
        raise SourceUnreadable(
            f"Parquet file {str(path)!r} has no manifest; it was not written by `persist`, `create_saved_dataset`, "
            "`to_parquet` or `to_delta` of a retrieval"
        )
    manifest: dict[str, Any] = json.loads(content)
    return manifest


def _data_file(path: Path) -> Path:
    """Returns the Parquet file that a saved training set is."""
    if (path / "_delta_log").is_dir():
        files = read_delta(str(path), str(path)).files
        if len(files) != 1:
            raise SourceUnreadable(
                f"Delta table {str(path)!r} holds {len(files)} files, expected the one that a retrieval saved: "
                "somebody else wrote to it, and no manifest says what; save the training set again"
            )
        return Path(files[0].path)
    inside = path / TRAINING_SET_FILE
    return inside if inside.is_file() else path


def _view(config: RepoConfig, history: Planned, number: int) -> dict[str, Any]:
    part = history.parts[number]
    view = part.requested.view
    definition = view_definition(config.project, view)
    return {
        "name": view.projection.name_to_use(),
        "features": list(part.requested.features),
        "fingerprint": definition.fingerprint,
        "source": _shown(config, history.source.path),
    }


def _fingerprint(view: Any) -> str:
    """Returns a digest of an on-demand view's definition; of its function the text counts, not how it was stored."""
    definition = {
        "mode": view.mode,
        "function": getattr(view.feature_transformation, "udf_string", ""),
        "features": [(field.name, str(field.dtype)) for field in view.features],
        "sources": sorted(view.source_feature_view_projections) + sorted(view.source_request_sources),
    }
    return hashlib.blake2b(json.dumps(definition).encode(), digest_size=16).hexdigest()


def _file(config: RepoConfig, path: str) -> dict[str, Any]:
    try:
        status = Path(path).stat()
    except OSError as error:
        raise SourceUnreadable(f"source file {path!r} is no longer there ({error.strerror}); retrieve again") from error
    seconds, ns = divmod(status.st_mtime_ns, _NS_PER_SECOND)
    modified = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"
    return {"path": _shown(config, path), "bytes": status.st_size, "modified": modified}


def _shown(config: RepoConfig, path: str) -> str:
    """Returns a path as seen from the repo folder, where it lies below it: so that a moved repo is the same repo."""
    repo = Path(config.repo_path or ".").absolute()
    return str(Path(path).relative_to(repo)) if Path(path).is_relative_to(repo) else path
