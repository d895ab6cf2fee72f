"""A replay of the past: it moves the clock of a feature repo on, for all processes of the repo at once."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from store.clock import POSITION_FILE, clock_for, from_us, restart_as_replay, to_us
from store.clock_position import Position
from store.errors import ConfigError, InputError


class Replay:
    """The one that moves a repo's clock; made by `replaying`."""

    def __init__(self, position: Position) -> None:
        self._position = position

    def now(self) -> datetime:
        """Returns where the clock stands, as an aware datetime in UTC."""
        return from_us(self._position.read_us())

    def advance(self, instant: datetime) -> None:
        """Moves the clock on to an instant; one without a zone is UTC.

        Raises:
            InputError: the instant lies before where the clock stands, which never goes back.
        """
        instant_us, now_us = to_us(instant), self._position.read_us()
        if instant_us < now_us:
            raise InputError(
                f"the replay's clock stands at {from_us(now_us).isoformat()} and cannot go back to "
                f"{from_us(instant_us).isoformat()}; give a later instant, or begin the replay anew"
            )
        self._position.write_us(instant_us)


@contextmanager
def replaying(repo_path: Path, start: datetime | None = None) -> Iterator[Replay]:
    """Gives what moves the clock of a feature repo, for as long as the block lasts; then the clock stands still.

    Args:
        start: where the clock begins, whatever it said before; None goes on from where the last replay left it.

    Raises:
        ConfigError: another process replays, or there is no replay to go on with.
    """
    data = Path(repo_path) / "data"
    data.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data / "clock.replaying.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process replays on the clock of {str(repo_path)!r}; let it end, or stop it"
            ) from error
        if start is not None:
            restart_as_replay(repo_path, start)
        elif clock_for(repo_path, {}).position is None:
            raise ConfigError(f"no replay has set the clock of {str(repo_path)!r}; begin one with a start")
        yield Replay(Position(data / POSITION_FILE, is_writable=True))
    finally:
        os.close(descriptor)
