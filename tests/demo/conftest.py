"""The flights, prepared once for all tests that only read them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from demo.flights import Prepared, prepare
from demo.instants import PackageTables, read_package
from tests.oracles.flights import Record


@pytest.fixture(scope="session")
def package() -> PackageTables:
    """The package's tables as they stand in it."""
    return read_package()


@pytest.fixture(scope="session")
def steps() -> list[str]:
    """What the preparation of `flights_repo` has told of its steps."""
    return []


@pytest.fixture(scope="session")
def flights_repo(tmp_path_factory: pytest.TempPathFactory, project_root: Path, steps: list[str]) -> Path:
    """A feature repo with the shipped declarations and prepared sources; not to be changed."""
    repo = tmp_path_factory.mktemp("flights") / "feature_repo"
    shutil.copytree(project_root / "feature_repo", repo, ignore=shutil.ignore_patterns("data", "__pycache__"))
    prepare(repo / "data" / "flights", steps.append)
    return repo


@pytest.fixture(scope="session")
def prepared(flights_repo: Path) -> Prepared:
    """What the preparation says of itself when it finds everything in place."""
    return prepare(flights_repo / "data" / "flights")


@pytest.fixture(scope="session")
def flights(flights_repo: Path) -> pd.DataFrame:
    """The prepared flights."""
    return pd.read_parquet(flights_repo / "data" / "flights" / "flights.parquet")


@pytest.fixture(scope="session")
def record() -> Record:
    """The second account of the flights."""
    return Record()
