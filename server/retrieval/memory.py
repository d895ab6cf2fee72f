"""A bound on memory while a stranger's body is parsed: what decoders are led to allocate is refused by the kernel."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.limits import BODY_PARSE_BYTES_MAX
from store.errors import TooLarge


@contextmanager
def bounded(bytes_max: int = BODY_PARSE_BYTES_MAX) -> Iterator[None]:
    """Lets this process take so many bytes more than it has, and no longer than the block lasts.

    Raises:
        TooLarge: the block took more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = _address_space_bytes() + bytes_max
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
    try:
        yield
    except MemoryError as error:
        raise TooLarge(
            f"body: parsing it takes more than {bytes_max} bytes of memory; send the rows in several requests, and "
            "long texts that repeat not at all"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
