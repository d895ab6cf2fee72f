"""The newest event time of what is stored of each view: raised by whoever writes, in the same round trip.

It is kept per generation of a view, and for a windowed view's stream tiles per definition, as both are read one at a
time. A maximum does not depend on who wrote first, so writers need no agreement, and Redis takes it by itself: ZADD GT
costs no script and, beside the rows of the same batch, no time that can be measured.

Scores are doubles, exact to the microsecond until the year 2255. Rows that an erasure or an expiry took away were
written all the same: the time is that of the newest event that came in, not a promise that its row is still there.
"""

from collections.abc import Sequence

from store.kernel import keys
from store.online.commands import Command


def raise_newest(project: str, members: Sequence[bytes], newest_us: int) -> Command:
    """Returns the command that notes an event time for each of some names, where it is newer than what is noted."""
    noted = [part for member in members for part in (newest_us, member)]
    return ("ZADD", keys.newest_key(project), "GT", *noted)


def forget_newest(project: str, members: Sequence[bytes]) -> Command:
    """Returns the command that drops what is noted of some names."""
    return ("ZREM", keys.newest_key(project), *members)
