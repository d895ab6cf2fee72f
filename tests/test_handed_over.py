import os
from pathlib import Path

import pytest

from store.handed_over import service_of_one_retrieval, spill_base
from store.limits import HISTORICAL_CONCURRENT_MAX
from store.machine import available_bytes
from store.offline.budget import bytes_of
from store.snapshot import load_config
from tests.stores import yaml_of

PHYSICAL_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("limit", "expected"), [("max\n", PHYSICAL_BYTES), ("1000\n", 1_000), (f"{2 * PHYSICAL_BYTES}", PHYSICAL_BYTES)]
)
def test_a_containers_limit_counts_where_it_is_less_than_the_machines(
    tmp_path: Path, limit: str, expected: int
) -> None:
    path = tmp_path / "memory.max"
    assert available_bytes(path) == PHYSICAL_BYTES
    path.write_text(limit)
    assert available_bytes(path) == expected


@pytest.mark.parametrize("memory_limit", [None, "3GB"])
def test_a_retrieval_spills_into_its_own_folder_and_takes_its_share_of_memory(
    repo: Path, tmp_path: Path, memory_limit: str | None
) -> None:
    (repo / "feature_store.yaml").write_text(yaml_of("redis://127.0.0.1:1"))
    config = load_config(repo)
    config.offline_store.memory_limit = memory_limit
    service_of_one_retrieval(repo, config, tmp_path / "registry.db", tmp_path)
    assert spill_base(config) == tmp_path
    assert config.registry.path == str(tmp_path / "registry.db")
    taken = bytes_of(config.offline_store.memory_limit)
    assert taken == 3 * 10**9 if memory_limit else taken * HISTORICAL_CONCURRENT_MAX <= available_bytes()
