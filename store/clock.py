"""The one clock that store, engine and server read: the system's, one that starts at an instant, or a replay's.

`LARDER_CLOCK=<ISO instant>` starts a clock at that instant that then runs at wall speed. `LARDER_CLOCK=replay` joins
the clock of a replay, which stands still but for the replay that moves it on (`store.replay`). Either is kept beside
the data (`data/clock.json` in the feature repo), so that all processes of a repo agree on the time, also those without
the variable. Deleting the file returns the repo to the system's clock.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from store.clock_position import Position, place
from store.errors import ConfigError
from store.files import locked, write_atomically

CLOCK_VARIABLE = "LARDER_CLOCK"
CLOCK_FILE = "clock.json"
POSITION_FILE = "clock.position"
REPLAY = "replay"
"""What `LARDER_CLOCK` says to join the clock of a replay."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
EARLIEST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The first and last instant of the years 1 to 9999 UTC, both legal: what a datetime and RFC 3339 can say."""

_RUN_US_MAX = 99 * 366 * 86_400 * 1_000_000
"""A clock that is started runs on, and must not run past the last instant while its process lives."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock that runs at wall speed, shifted from the system's by a fixed offset; or a replay's, which stands still.

    Units: `offset_us` is microseconds, 0 for the system's clock and for a replay's.

    Attributes:
        position: where a replay's clock stands, None for one that runs.
        began_us: of a replay's clock its first instant, and the system's at that moment.
    """

    offset_us: int = 0
    position: Position | None = field(default=None, compare=False)
    began_us: tuple[int, int] | None = None

    @property
    def is_system(self) -> bool:
        """Whether this is the system's own clock."""
        return self.offset_us == 0 and self.position is None

    def now_us(self) -> int:
        """Returns the current instant in microseconds since the Unix epoch, UTC."""
        if self.position is not None:
            return self.position.read_us()
        return time.time_ns() // 1_000 + self.offset_us

    def now(self) -> datetime:
        """Returns the current instant as an aware datetime in UTC."""
        return from_us(self.now_us())

    def of_system_us(self, system_us: int) -> int:
        """Returns what this clock said when the system's clock said something, such as when a file was changed.

        How a replay went on is not recorded: what was changed since it began counts as changed now.
        """
        if self.began_us is None:
            return system_us + self.offset_us
        began_us, began_system_us = self.began_us
        return began_us + system_us - began_system_us if system_us <= began_system_us else self.now_us()


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
        ConfigError: `LARDER_CLOCK` is neither an ISO 8601 instant nor `replay`, there is no replay to join, or the file
            that keeps the clock is none.
    """
    setting = environ.get(CLOCK_VARIABLE, "").strip()
    path = Path(repo_path) / "data" / CLOCK_FILE
    if not setting:
        # Whoever started the clock of this repo did so for its data, which the system's clock would call outdated.
        return _read_clock(path) or Clock()
    if setting == REPLAY:
        clock = _read_clock(path)
        if clock is None or clock.position is None:
            raise ConfigError(
                f"{CLOCK_VARIABLE}={REPLAY!r}, but no replay has set the clock of {str(repo_path)!r}; begin one "
                "(store.replay.replaying), or unset the variable"
            )
        return clock
    start_us = _parse(setting)
    clock = _read_clock(path, start_us)
    if clock is None:
        with locked(path):
            clock = _read_clock(path, start_us) or _start(path, start_us)
    return clock


def restart_clock(repo_path: Path, start: datetime) -> Clock:
    """Starts the shared clock of a repo anew at an instant; processes already running keep their own."""
    path = Path(repo_path) / "data" / CLOCK_FILE
    with locked(path):
        return _start(path, to_us(start))


def restart_as_replay(repo_path: Path, start: datetime) -> Clock:
    """Sets the shared clock of a repo to an instant at which it stands until a replay moves it on.

    Processes that follow the clock of an earlier replay go with it; others that run already keep their own.
    """
    start_us = to_us(start)
    path = Path(repo_path) / "data" / CLOCK_FILE
    with locked(path):
        place(path.with_name(POSITION_FILE), start_us)
        began = {"start_us": start_us, "system_us": time.time_ns() // 1_000, "is_replay": True}
        write_atomically(path, json.dumps(began).encode())
        return _clock(path, began)


def _parse(setting: str) -> int:
    try:
        start_us = to_us(datetime.fromisoformat(setting))
    except ValueError as error:
        raise ConfigError(
            f"{CLOCK_VARIABLE}={setting!r} is neither an ISO 8601 instant nor {REPLAY!r}; "
            "write it like 2013-12-01T12:00:00Z, or unset it for the repo's own clock"
        ) from error
    if not is_sayable(start_us) or not is_sayable(start_us + _RUN_US_MAX):
        raise ConfigError(f"{CLOCK_VARIABLE}={setting!r} lies outside of the years 1 to 9900 UTC; change it")
    return start_us


def _read_clock(path: Path, start_us: int | None = None) -> Clock | None:
    """Returns the clock that is kept, None if none is; with a start only one that runs from there."""
    try:
        kept = json.loads(path.read_text())
        clock = _clock(path, kept)
        if start_us is None or (clock.position is None and int(kept["start_us"]) == start_us):
            return clock
    except FileNotFoundError:
        return None
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"clock file {str(path)!r} is no clock; delete it to start the clock anew") from error
    return None


def _clock(path: Path, kept: Mapping[str, Any]) -> Clock:
    if kept.get("is_replay"):
        began_us = int(kept["start_us"]), int(kept["system_us"])
        return Clock(position=Position(path.with_name(POSITION_FILE)), began_us=began_us)
    return Clock(int(kept["offset_us"]))


def _start(path: Path, start_us: int) -> Clock:
    offset_us = start_us - time.time_ns() // 1_000
    write_atomically(path, json.dumps({"start_us": start_us, "offset_us": offset_us}).encode())
    return Clock(offset_us)
