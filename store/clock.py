"""The one clock that store, engine and server read: the system's, or one that starts at a stated instant.

`LARDER_CLOCK=<ISO instant>` starts a clock at that instant that then runs at wall speed. Its origin is kept
beside the data (`data/clock.json` in the feature repo), so that all processes of a repo agree on the time.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from store.errors import ConfigError
from store.files import locked, write_atomically

CLOCK_VARIABLE = "LARDER_CLOCK"
CLOCK_FILE = "clock.json"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that runs at wall speed, shifted from the system's by a fixed offset.

    Units: `offset_us` is microseconds, 0 for the system's clock.
    """

    offset_us: int = 0

    @property
    def is_system(self) -> bool:
        """Whether this is the system's own clock."""
        return self.offset_us == 0

    def now_us(self) -> int:
        """Returns the current instant in microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000 + self.offset_us

    def now(self) -> datetime:
        """Returns the current instant as an aware datetime in UTC."""
        return from_us(self.now_us())


def from_us(instant_us: int) -> datetime:
    """Returns microseconds since the Unix epoch as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=instant_us)


def to_us(instant: datetime) -> int:
    """Returns a datetime as microseconds since the Unix epoch; one without a zone is UTC (Feast's rule)."""
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return (instant - _EPOCH) // timedelta(microseconds=1)


def clock_for(repo_path: Path, environ: Mapping[str, str] = os.environ) -> Clock:
    """Returns the clock of a feature repo, starting the shared one if nobody has yet.

    Raises:
        ConfigError: `LARDER_CLOCK` is not an ISO 8601 instant.
    """
    setting = environ.get(CLOCK_VARIABLE, "").strip()
    if not setting:
        return Clock()
    start_us = _parse(setting)
    path = Path(repo_path) / "data" / CLOCK_FILE
    offset_us = _read_offset(path, start_us)
    if offset_us is None:
        with locked(path):
            offset_us = _read_offset(path, start_us)
            if offset_us is None:
                offset_us = _start(path, start_us)
    return Clock(offset_us)


def restart_clock(repo_path: Path, start: datetime) -> Clock:
    """Starts the shared clock of a repo anew at an instant; processes already running keep their own."""
    path = Path(repo_path) / "data" / CLOCK_FILE
    with locked(path):
        return Clock(_start(path, to_us(start)))


def _parse(setting: str) -> int:
    try:
        return to_us(datetime.fromisoformat(setting))
    except ValueError as error:
        raise ConfigError(
            f"{CLOCK_VARIABLE}={setting!r} is not an ISO 8601 instant; "
            "write it like 2013-12-01T12:00:00Z, or unset it for the system's clock"
        ) from error


def _read_offset(path: Path, start_us: int) -> int | None:
    """Returns the kept offset in microseconds, or None if no clock with this start is kept."""
    try:
        kept = json.loads(path.read_text())
        return int(kept["offset_us"]) if kept["start_us"] == start_us else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"clock file {str(path)!r} is no clock; delete it to start the clock anew") from error


def _start(path: Path, start_us: int) -> int:
    offset_us = start_us - time.time_ns() // 1_000
    write_atomically(path, json.dumps({"start_us": start_us, "offset_us": offset_us}).encode())
    return offset_us
