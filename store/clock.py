"""The one clock that store, engine and server read: the system's, or one that starts at a stated instant.

`LARDER_CLOCK=<ISO instant>` starts a clock at that instant that then runs at wall speed. Its origin is kept
beside the data (`data/clock.json` in the feature repo), so that all processes of a repo agree on the time, also
those without the variable. Deleting the file returns the repo to the system's clock.
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
_MICROSECOND = timedelta(microseconds=1)
EARLIEST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The first and last instant of the years 1 to 9999 UTC, both legal: what a datetime and RFC 3339 can say."""

_RUN_US_MAX = 99 * 366 * 86_400 * 1_000_000
"""A clock that is started runs on, and must not run past the last instant while its process lives."""


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
    return (instant - _EPOCH) // _MICROSECOND


def is_sayable(instant_us: int) -> bool:
    """Whether an instant lies in the years 1 to 9999 UTC, beyond which `from_us` raises OverflowError."""
    return EARLIEST_US <= instant_us <= LATEST_US


def said(instant_us: int) -> str:
    """Returns an instant as a message names it: ISO 8601, or microseconds since 1970 where ISO ends."""
    return from_us(instant_us).isoformat() if is_sayable(instant_us) else f"{instant_us} us since 1970"


def clock_for(repo_path: Path, environ: Mapping[str, str] = os.environ) -> Clock:
    """Returns the clock of a feature repo, starting the shared one if `LARDER_CLOCK` says so and nobody has yet.

    Raises:
        ConfigError: `LARDER_CLOCK` is not an ISO 8601 instant, or the file that keeps the clock is none.
    """
    setting = environ.get(CLOCK_VARIABLE, "").strip()
    path = Path(repo_path) / "data" / CLOCK_FILE
    if not setting:
        # Whoever started the clock of this repo did so for its data, which the system's clock would call outdated.
        return Clock(_read_offset(path, None) or 0)
    start_us = _parse(setting)
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
        start_us = to_us(datetime.fromisoformat(setting))
    except ValueError as error:
        raise ConfigError(
            f"{CLOCK_VARIABLE}={setting!r} is not an ISO 8601 instant; "
            "write it like 2013-12-01T12:00:00Z, or unset it for the repo's own clock"
        ) from error
    if not is_sayable(start_us) or not is_sayable(start_us + _RUN_US_MAX):
        raise ConfigError(f"{CLOCK_VARIABLE}={setting!r} lies outside of the years 1 to 9900 UTC; change it")
    return start_us


def _read_offset(path: Path, start_us: int | None) -> int | None:
    """Returns the kept offset in microseconds, or None if no clock with this start (None: any) is kept."""
    try:
        kept = json.loads(path.read_text())
        offset_us, kept_start_us = int(kept["offset_us"]), int(kept["start_us"])
        return offset_us if start_us in (None, kept_start_us) else None
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"clock file {str(path)!r} is no clock; delete it to start the clock anew") from error


def _start(path: Path, start_us: int) -> int:
    offset_us = start_us - time.time_ns() // 1_000
    write_atomically(path, json.dumps({"start_us": start_us, "offset_us": offset_us}).encode())
    return offset_us
