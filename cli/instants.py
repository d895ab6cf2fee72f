"""Instants as people type them on a command line."""

import re
from datetime import datetime

from store.clock import to_us
from store.errors import InputError

_FINER_THAN_US = re.compile(r"[.,][0-9]{7}")


def instant_us(option: str, text: str) -> int:
    """Returns an ISO 8601 instant in microseconds since the Unix epoch; one without a zone is UTC.

    Raises:
        InputError: it is none, or finer than that.
    """
    # Python cuts what lies below a microsecond, which could be the difference between two rows.
    is_finer = _FINER_THAN_US.search(text) is not None
    try:
        instant = None if is_finer else to_us(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        instant = None
    if instant is None:
        raise InputError(
            f"{option} {text!r} is no instant; write it like 2013-12-01T12:00:00Z, to the microsecond at most"
        )
    return instant
