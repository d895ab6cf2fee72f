"""The instant of a replay's clock, in a file that every process of the repo has mapped.

To read it takes no call of the system, and what one process writes the others see at once. It is one machine's memory,
so a replay and all that follow it run on one machine.
"""

import mmap
import os
from pathlib import Path

from store.errors import ConfigError
from store.files import write_atomically

_HEAD = b"larder.1"
_BYTES = len(_HEAD) + 8
"""The head, then microseconds since the Unix epoch as a 64-bit integer in the machine's own byte order."""


class Position:
    """A mapped instant."""

    def __init__(self, path: Path, *, is_writable: bool = False) -> None:
        """Maps the file.

        Raises:
            ConfigError: it is not there, or not such a file.
        """
        try:
            descriptor = os.open(path, (os.O_RDWR if is_writable else os.O_RDONLY) | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ConfigError(
                f"the clock is a replay's, whose position {str(path)!r} is not there; begin the replay anew "
                "(store.replay.replaying with a start), or delete clock.json beside it for the system's clock"
            ) from error
        try:
            if os.fstat(descriptor).st_size != _BYTES:
                raise _broken(path)
            access = mmap.ACCESS_WRITE if is_writable else mmap.ACCESS_READ
            mapped = mmap.mmap(descriptor, _BYTES, access=access)
        finally:
            os.close(descriptor)
        if mapped[: len(_HEAD)] != _HEAD:
            raise _broken(path)
        # Eight aligned bytes are read and written in one instruction, so no reader sees half of an instant.
        self._words = memoryview(mapped).cast("q")

    def read_us(self) -> int:
        """Returns the instant in microseconds since the Unix epoch."""
        return self._words[1]

    def write_us(self, instant_us: int) -> None:
        """Sets the instant for all processes."""
        self._words[1] = instant_us


def place(path: Path, instant_us: int) -> None:
    """Sets the instant in a file, which is made if there is none; one that is there keeps its mappings.

    Raises:
        ConfigError: what is there is not such a file.
    """
    if path.exists():
        Position(path, is_writable=True).write_us(instant_us)
        return
    content = bytearray(_BYTES)
    content[: len(_HEAD)] = _HEAD
    memoryview(content).cast("q")[1] = instant_us
    write_atomically(path, bytes(content))


def _broken(path: Path) -> ConfigError:
    return ConfigError(f"file {str(path)!r} is no position of a replay's clock; delete it and begin the replay anew")
