"""What the log of served vectors needs of the store that it belongs to."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast.repo_config import RepoConfig

from store.audit.buffers import States
from store.audit.destinations import log_folder
from store.audit.retention import retention_days
from store.clock import Clock
from store.errors import LarderError
from store.kernel.served_log import LoggedState
from store.limits import LOOKUP_SECONDS_MAX
from store.offline.landing import append_file
from store.online import RedisOnlineStore
from store.online.conversations import read_state
from store.online.plan import OnlinePlan


class StoreSurroundings:
    """The store of one feature repo, as its log sees it; used in the log's thread."""

    def __init__(
        self, config: RepoConfig, online: RedisOnlineStore, clock: Clock, views: Callable[[], Sequence[Any]]
    ) -> None:
        self._config = config
        self._online = online
        self._clock = clock
        self._views = views

    def now_us(self) -> int:
        """Returns the clock's instant."""
        return self._clock.now_us()

    def folder_of(self, plan: OnlinePlan) -> Path:
        """Returns the folder of a service's log.

        Raises:
            DefinitionError: it has none that can be used.
            RegistryUnavailable: there is no registry.
        """
        assert plan.logging is not None
        return log_folder(self._config, plan.logging.service, plan.logging.destination, self._views())

    def states_of(self, names: Sequence[str]) -> States:
        """Returns what Redis says of views; None while it cannot be asked."""
        states: dict[str, LoggedState | None] = dict.fromkeys(names)
        try:
            session = self._online.session(self._config)
            for name in names:
                known = session.hold(read_state(self._config.project, name), LOOKUP_SECONDS_MAX)
                states[name] = LoggedState.of(known.state)
        except LarderError:
            # Redis is away: the audit then goes by what it says later.
            return dict.fromkeys(names)
        return states

    def append(self, folder: Path, table: pa.Table) -> None:
        """Writes a table as one new file of a folder, whole or not at all.

        Raises:
            SourceError, OutOfSpace: as `append_file`.
        """
        append_file(self._config, folder, table)

    @property
    def retention_days(self) -> int:
        """How many days a log file is kept."""
        return retention_days(self._config)
