"""Tells Feast's test suite which offline store to test; the suite imports it by `FULL_REPO_CONFIGS_MODULE`.

Both stores run under the same names of data source creators, so that a test has the same id with either.
"""

import importlib
import os
import sys
from typing import Any

from feast.repo_config import get_offline_config_from_type

STORE_VARIABLE = "LARDER_FEAST_SUITE_STORE"
"""Holds the `offline_store.type` to test."""

_UNIVERSAL = "tests.universal.feature_repos"


def _creator(name: str, base: Any) -> Any:
    """Returns one of the suite's data source creators with the store under test in place of its own."""
    config = get_offline_config_from_type(os.environ[STORE_VARIABLE])
    return type(name, (base,), {"create_offline_store_config": lambda _: config()})


_files = importlib.import_module(f"{_UNIVERSAL}.universal.data_sources.file")
_parquet = ("local", _creator("ParquetDataSourceCreator", _files.FileDataSourceCreator))
_delta = ("local", _creator("DeltaDataSourceCreator", _files.DeltaFileSourceCreator))

AVAILABLE_OFFLINE_STORES = [_parquet, _delta]
AVAILABLE_ONLINE_STORES = {"sqlite": ({"type": "sqlite"}, None)}

# Tests that ask for the `file` store by name get the store under test too. The suite's module is being imported just
# now, by the line that imports this one, and this table of it is there already.
sys.modules[f"{_UNIVERSAL}.repo_configuration"].__dict__["OFFLINE_STORE_TO_PROVIDER_CONFIG"]["file"] = _parquet
