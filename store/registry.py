"""Feast's registry in a file that is whole or not there.

Feast's own file store writes in place, and a reader in that instant gets a truncated file, which protobuf may
read as a valid, empty registry. This one writes beside and renames, and takes an empty file for a torn one.
"""

import uuid
from pathlib import Path

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig
from feast.utils import _utc_now
from google.protobuf.message import DecodeError

from store.errors import RegistryUnavailable
from store.files import locked, write_atomically


class AtomicFileRegistryStore(RegistryStore):
    """A registry store (`registry_store_type`) that replaces its file atomically, under a lock."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        """Takes Feast's arguments; a relative path is resolved against the repo folder."""
        self._path = Path(repo_path) / registry_config.path

    @property
    def path(self) -> Path:
        """The registry file."""
        return self._path

    def get_registry_proto(self) -> RegistryProto:
        """Returns the registry.

        Raises:
            FileNotFoundError: there is none yet (Feast then starts an empty one).
            RegistryUnavailable: the file cannot be read or is torn.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"registry {str(self._path)!r} not found; run 'feast apply' first") from None
        except OSError as error:
            raise RegistryUnavailable(f"registry {str(self._path)!r} cannot be read: {error}") from error
        try:
            registry: RegistryProto = RegistryProto.FromString(content)
        except DecodeError as error:
            raise self._torn(f"{error}") from error
        if not registry.version_id:
            raise self._torn(f"{len(content)} bytes without a version")
        return registry

    def _torn(self, what: str) -> RegistryUnavailable:
        return RegistryUnavailable(
            f"registry {str(self._path)!r} is torn ({what}); "
            "restore it from a backup, or delete it and run 'feast apply'"
        )

    def update_registry_proto(self, registry_proto: RegistryProto) -> None:
        """Replaces the registry by a new one, durably."""
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(_utc_now())
        with locked(self._path):
            write_atomically(self._path, registry_proto.SerializeToString())

    def teardown(self) -> None:
        """Removes the registry file."""
        self._path.unlink(missing_ok=True)
