"""Feast's registry in a file that is whole or not there.

Feast's own file store writes in place, and a reader in that instant gets a truncated file, which protobuf may
read as a valid, empty registry. This one writes beside and renames, and takes an empty file for a torn one.
Feast also writes the whole of what it once read; this one merges what somebody else has written meanwhile.
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
from store.registry_merge import merged


class AtomicFileRegistryStore(RegistryStore):
    """A registry store (`registry_store_type`) that replaces its file atomically and undoes nobody's changes."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        """Takes Feast's arguments; a relative path is resolved against the repo folder."""
        self._path = Path(repo_path) / registry_config.path
        self._base = RegistryProto()

    @property
    def path(self) -> Path:
        """The registry file."""
        return self._path

    def get_registry_proto(self) -> RegistryProto:
        """Returns the registry, which is then the base of the caller's changes.

        Raises:
            FileNotFoundError: there is none yet (Feast then starts an empty one).
            RegistryUnavailable: the file cannot be read or is torn.
        """
        registry = self._read()
        self._base = _copy(registry)
        return registry

    def _read(self) -> RegistryProto:
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
        """Replaces the registry by a changed one, durably; it takes in what others changed since it was read.

        Raises:
            RegistryConflict: somebody else changed the same object meanwhile; nothing is written.
        """
        with locked(self._path):
            if self._path.exists():
                current = self._read()
                if current.version_id != self._base.version_id:
                    registry_proto.CopyFrom(merged(self._base, current, registry_proto))
            registry_proto.version_id = str(uuid.uuid4())
            registry_proto.last_updated.FromDatetime(_utc_now())
            write_atomically(self._path, registry_proto.SerializeToString())
        self._base = _copy(registry_proto)

    def teardown(self) -> None:
        """Removes the registry file."""
        self._path.unlink(missing_ok=True)


def _copy(registry: RegistryProto) -> RegistryProto:
    result = RegistryProto()
    result.CopyFrom(registry)
    return result
