"""The registry as a server holds it: a snapshot that is renewed beside the requests, never in their way."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore
from feast.errors import FeastError
from feast.infra.registry.registry import Registry
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import FeastConfigError, RepoConfig, load_repo_config
from pydantic import ValidationError

from store.errors import ConfigError, RegistryUnavailable
from store.remote_registry import copied, registry_of


def load_config(repo_path: Path) -> RepoConfig:
    """Returns the settings of a feature repo.

    Raises:
        ConfigError: there is no `feature_store.yaml`, or it cannot be understood.
    """
    path = repo_path / "feature_store.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no feature repo at {str(repo_path)!r}: feature_store.yaml is missing; give the repo's folder"
        )
    try:
        config = load_repo_config(repo_path, path)
        # Feast reads these parts when they are first asked for, which would be in the middle of a request.
        _ = config.registry, config.offline_store, config.online_store, config.batch_engine
        return config
    except _CONFIG_ERRORS as error:
        # The libraries' own messages quote what they could not read, which may be a password.
        raise ConfigError(f"{str(path)!r} cannot be used: {_what_is_wrong(error)}; correct it") from None


_CONFIG_ERRORS = (
    FeastError, FeastConfigError, yaml.YAMLError,
    ValueError, TypeError, KeyError, AttributeError, AssertionError, OSError,
)  # fmt: skip
_SIGNS_OF_A_SECRET = ("://", "@", "password", "secret", "token")


def _what_is_wrong(error: Exception) -> str:
    """Returns what is wrong with a `feature_store.yaml`, with places and names of settings and none of its values."""
    if isinstance(error, FeastConfigError) and error.args and isinstance(error.args[0], Exception):
        return _what_is_wrong(error.args[0])
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        return f"it is not valid YAML{where}"
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return "it is not valid YAML in UTF-8"
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(dict.fromkeys(f"{_setting_of(fault)} {_fault_of(fault)}" for fault in faults))
    if isinstance(error, FeastError):
        # These name a type that cannot be had, and somebody may have written a connection string in its place.
        told = str(error).rstrip(".")
        is_tellable = not any(sign in told.lower() for sign in _SIGNS_OF_A_SECRET)
        return told if is_tellable else f"a 'type' in it names nothing that can be loaded ({type(error).__name__})"
    if isinstance(error, OSError):
        return f"it cannot be read ({error.strerror})"
    return f"it is not a mapping of settings as Feast's documentation describes ({type(error).__name__})"


def _setting_of(fault: Any) -> str:
    return f"setting {'.'.join(map(str, fault['loc']))!r}:" if fault["loc"] else "its settings:"


def _fault_of(fault: Any) -> str:
    # What a validator of Feast or of a plug-in says in its own words may quote the value; a project's name may be told.
    is_own_words = fault["type"] in {"value_error", "assertion_error"} and fault["loc"][:1] != ("project",)
    return "is refused" if is_own_words else str(fault["msg"])


def _always(registry: RegistryProto) -> Callable[..., RegistryProto]:
    def held(project: str | None, allow_cache: bool = False) -> RegistryProto:  # noqa: ARG001 - Feast's signature
        return registry

    return held


def _said_problem(error: Exception) -> str:
    # gRPC's errors tell what they are about over many lines, and in `details` in one.
    details = getattr(error, "details", None)
    return f"{type(error).__name__}: {details() if callable(details) else error}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the registry, and a Feast store that reads it and nothing newer."""

    store: FeatureStore
    version: str


class RegistrySnapshots:
    """Holds the last good registry; `refresh` takes in a newer one or says what is wrong with it.

    Attributes:
        problem: what was wrong at the last refresh, None if nothing was.
    """

    def __init__(self, config: RepoConfig, repo_path: Path) -> None:
        self._config = config
        self._repo_path = repo_path
        self._current: Snapshot | None = None
        self._elsewhere: FeatureStore | None = None
        self._stamp: tuple[int, ...] | None = None
        self._checked = time.monotonic()
        self.problem: str | None = "the registry has not been read yet"

    @property
    def age_seconds(self) -> float:
        """How long ago the held state was last found to be the current one."""
        return time.monotonic() - self._checked

    @property
    def is_loaded(self) -> bool:
        """Whether there is a last good state."""
        return self._current is not None

    def current(self) -> Snapshot:
        """Returns the last good state.

        Raises:
            RegistryUnavailable: there has been none yet.
        """
        if self._current is None:
            raise RegistryUnavailable(self.problem or "the registry has not been read yet")
        return self._current

    @property
    def is_quick(self) -> bool:
        """Whether a look at a registry that has not changed is one stat of a file."""
        return self._file_stamp() is not None

    def refresh(self) -> None:
        """Takes in the registry if it has changed; a broken or emptied one leaves the last good one in place."""
        stamp = self._file_stamp()
        if stamp is not None and stamp == self._stamp:
            self._checked, self.problem = time.monotonic(), None
            return
        try:
            self._current = self._load()
        except Exception as error:  # noqa: BLE001 - see below
            # A process edge: a registry behind SQL or a network may raise anything, and the server lives on.
            self.problem = str(error) if isinstance(error, RegistryUnavailable) else _said_problem(error)
            self._stamp = None
            return
        self._stamp, self._checked, self.problem = stamp, time.monotonic(), None

    def _load(self) -> Snapshot:
        path = self._file()
        if path is not None and not path.exists():
            # Feast would write an empty registry there.
            raise RegistryUnavailable(
                f"registry {str(path)!r} not found; run 'feast apply' in {str(self._repo_path)!r}"
            )
        store = self._new_store() if path is not None else self._store_elsewhere()
        if self._config.registry.registry_type == "remote":
            whole = copied(store.registry, self._config.project)
            if self._current is not None and whole.version_id == self._current.version:
                return self._current
            store = self._new_store()
            store._registry = registry_of(whole, self._config)  # noqa: SLF001 - Feast lets nobody give it one
        registry = store.registry
        projects = {project.name for project in registry.list_projects(allow_cache=True)}
        if self._config.project not in projects:
            raise RegistryUnavailable(
                f"the registry does not hold project {self._config.project!r} (it holds {sorted(projects)}); "
                "run 'feast apply', or restore the registry"
            )
        version = ""
        if isinstance(registry, Registry):
            version = registry.cached_registry_proto.version_id
            # The snapshot is renewed here and never by a request: Feast's retrieval would read the file again, which
            # may be newer than the plan of the same request, or gone.
            registry.cached_registry_proto_ttl = timedelta(0)
            held: Any = registry
            held._get_registry_proto = _always(registry.cached_registry_proto)  # noqa: SLF001 - the one place it reads
        # Feast refuses to read a view while it is materialized, for ever after a killed run; its rows are whole.
        settings: Any = registry
        settings.serve_features_while_materializing = True
        return Snapshot(store, version)

    def _store_elsewhere(self) -> FeatureStore:
        """Returns the store of a registry that is no file: it keeps connections and threads, so it is made once."""
        if self._elsewhere is None:
            self._elsewhere = self._new_store()
        else:
            self._elsewhere.refresh_registry()
        return self._elsewhere

    def _new_store(self) -> FeatureStore:
        # Feast resolves the registry's path against the folder given here, not against the one in the settings.
        return FeatureStore(repo_path=str(self._repo_path), config=self._config)

    def _file(self) -> Path | None:
        """Returns the registry's file, None where the registry is not a local file."""
        settings = self._config.registry
        if settings.registry_type != "file" or "://" in settings.path:
            return None
        return self._repo_path / str(settings.path)

    def _file_stamp(self) -> tuple[int, ...] | None:
        path = self._file()
        if path is None:
            return None
        try:
            status = path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns
