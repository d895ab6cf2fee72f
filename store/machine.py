"""What this process may use of the machine that it runs on."""

import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_bytes(cgroup_limit: Path = _CGROUP_LIMIT) -> int:
    """Returns the memory that this process may use: the machine's, or its container's if that has less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = cgroup_limit.read_text().strip() if cgroup_limit.exists() else ""
    return min(physical, int(limit)) if limit.isdecimal() else physical
