"""What a process has used, measured from within it, and how much it wants."""

import contextlib
import os
import resource
from pathlib import Path


def cpu_seconds() -> float:
    """Returns the processor time that this process has used, all its threads together."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """Returns the peak of this process's resident memory.

    `ru_maxrss` would do, but a new process inherits its parent's value; Linux's VmHWM begins with the program.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def give_way(niceness: int) -> None:
    """Lets other processes go first: in this one's session by its niceness, elsewhere by that of the session."""
    os.nice(niceness)
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(niceness))
