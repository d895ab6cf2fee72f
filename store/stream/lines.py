"""Lines through the event log: a batch run draws one, and waits until all that came before it has landed.

What has an id up to the line is the run's, if it lands; what comes after it is the stream's. A partition that no worker
owns is drained by whoever waits, with the worker's own code.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from feast.repo_config import RepoConfig

from store.errors import OnlineStoreTimeout
from store.limits import LINE_SECONDS_MAX
from store.online.stream_log import draw_line, read_states
from store.online.stream_owners import Owner, own, owners
from store.stream.context import StreamContext
from store.stream.ownership import LEASE_MS, Renewal, worker_name
from store.stream.worker import Partitions

_POLL_SECONDS = 0.02

__all__ = ["draw_line", "have_events_kept", "landed_line", "wait_for_line"]


def landed_line(context: StreamContext, view: str, seconds_max: float | None = None) -> int:
    """Draws a line for a view, waits until all events before it that land have landed, and returns it.

    Args:
        view: its name; "" for a line that only has everything land.
        seconds_max: how long it waits, `LINE_SECONDS_MAX` by default.

    Raises:
        OnlineStoreTimeout: they did not land in time; the line stands all the same, and another may be drawn.
        LogFull, OnlineStoreError: as their names say.
    """
    line = context.session.hold(draw_line(context.log, view, context.clock.now_us()))
    wait_for_line(context, line, seconds_max)
    return line


def wait_for_line(context: StreamContext, line: int, seconds_max: float | None = None) -> None:
    """Waits until all partitions have passed a line; those without an owner are drained here.

    Raises:
        OnlineStoreTimeout: they have not in time.
    """
    seconds = LINE_SECONDS_MAX if seconds_max is None else seconds_max
    deadline = time.monotonic() + seconds
    with _Drain(context) as drain:
        while True:
            waiting = _before(context, line)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise OnlineStoreTimeout(
                    f"partitions {waiting} of the event log of project {context.project!r} have not landed what came "
                    f"before line {line} within {seconds:g} s; see in the log of 'larder ingest' what keeps them, "
                    "then run it again"
                )
            drain.take_free(waiting)
            if not drain.step():
                time.sleep(_POLL_SECONDS)


def have_events_kept(config: RepoConfig, repo: Path) -> None:
    """Waits until all events that were applied have landed and, of logged views, are kept; nothing without a log.

    Raises:
        OnlineStoreTimeout: a worker does not come to it.
        OnlineStoreError, ConfigError: as their names say.
    """
    context = StreamContext(repo, config)
    try:
        states = context.session.hold(read_states(context.log, range(context.log.partitions)))
        if any(state.landed < state.last for state in states):
            landed_line(context, "")
    finally:
        context.close()


def _before(context: StreamContext, line: int) -> list[int]:
    partitions = range(context.log.partitions)
    states = context.session.hold(read_states(context.log, partitions))
    return [p for p, state in zip(partitions, states, strict=True) if min(state.applied, state.landed) < line]


class _Drain:
    """Works on the partitions that no worker owns, for as long as a line is waited for."""

    def __init__(self, context: StreamContext) -> None:
        self._context = context
        self._worker = worker_name()
        self._partitions = Partitions(context)
        self._renewal: Renewal | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for partition in list(self._partitions.runs):
            self._partitions.end(partition, is_lost=False)
        if self._renewal is not None:
            self._renewal.close()

    def take_free(self, waiting: Sequence[int]) -> None:
        """Takes those of some partitions that nobody owns."""
        project, session = self._context.project, self._context.session
        held = session.hold(owners(project, [str(partition) for partition in waiting]))
        for task, holder in held.items():
            owner: Owner | None = None
            if holder is None:
                owner = session.hold(own(project, task, self._worker, LEASE_MS))
            if owner is not None:
                if self._renewal is None:
                    self._renewal = Renewal(self._context, self._worker)
                    self._renewal.start()
                self._renewal.owned[task] = owner
                self._partitions.begin(int(task), owner)

    def step(self) -> bool:
        """Does what there is to do in the partitions that were taken; whether there was anything."""
        if self._renewal is None:
            return False
        for task in self._renewal.take_lost():
            self._partitions.end(int(task), is_lost=True)
        return self._partitions.step()
