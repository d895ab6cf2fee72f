"""What the feature repos of all benchmarks have in common: their settings, and Feast's command line run in them."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECTS = {"larder": "shop", "feast": "mall"}
"""The usual project by whose stores a repo uses; repos that share a Redis have different ones."""

_BIN = Path(sys.executable).parent
_STORES = {
    "larder": """\
registry:
  path: data/registry.db
  registry_store_type: store.registry.AtomicFileRegistryStore
  serve_features_while_materializing: true
offline_store:
  type: store.offline.DuckDBOfflineStore
online_store:
  type: store.online.RedisOnlineStore
  connection_string: {address}
batch_engine:
  type: store.engine.DuckDBComputeEngine
""",
    "feast": """\
registry:
  path: data/registry.db
  serve_features_while_materializing: true
offline_store:
  type: duckdb
online_store:
  type: redis
  connection_string: {address}
""",
}


def make_repo(folder: Path, whose: str, address: str, definitions: str, project: str | None = None) -> Path:
    """Makes a feature repo over Larder's or Feast's stores with some definitions, and applies it."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    head = f"project: {project or PROJECTS[whose]}\nprovider: local\nentity_key_serialization_version: 3\n"
    (folder / "feature_store.yaml").write_text(head + _STORES[whose].format(address=address))
    (folder / "definitions.py").write_text(definitions)
    feast(folder, "apply")
    return folder


def feast(repo: Path, *arguments: str) -> None:
    """Runs Feast's command line in a repo; what it prints is shown only if it fails."""
    command: Sequence[str] = [str(_BIN / "feast"), "--chdir", str(repo), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"feast {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
