"""What is known of a view's row-level transformation when it is declared, before Feast commits it to the registry."""

from typing import Any

from feast.repo_config import RepoConfig

from store.definitions_from_feast import batch_source_of
from store.errors import DefinitionError, SourceUnreadable, TransformationError
from store.offline import DuckDBOfflineStoreConfig
from store.offline.row_transformations import transformation_of
from store.offline.sources import file_source, open_source
from store.offline.transformed_files import first_rows
from store.transformations_from_feast import registered, require_self_contained


def check_declared_transformation(config: RepoConfig, view: Any) -> None:
    """Checks a view's transformation as it will come back from the registry, by the first rows of its source.

    A source without any file has no rows to tell yet.

    Raises:
        DefinitionError: the function cannot be kept, fails for these rows, or gives what does not fit the view.
        SourceError: a file of the source cannot be read.
    """
    kept = registered(view)
    require_self_contained(kept)
    transformation = transformation_of(kept)
    if transformation is None or not isinstance(config.offline_store, DuckDBOfflineStoreConfig):
        return
    source = file_source(batch_source_of(view), f"feature view {view.name!r}")
    try:
        found = open_source(config, source)
    except SourceUnreadable:
        # It may be written later; whoever reads it then says what is wrong with it.
        return
    transformation.output_in_file(found.schema)
    rows = first_rows(found, transformation)
    try:
        if rows is not None:
            transformation.require_row_wise(rows, is_each_alone=True)
    except TransformationError as error:
        raise DefinitionError(f"{error} (the first rows of source {source.name!r})") from error
