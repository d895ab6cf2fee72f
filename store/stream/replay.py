"""Dead letters once more: a row that did not fit, as it came or corrected, is put into the log exactly once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from store.errors import InputError, MaterializationBusy, UnknownObject
from store.kernel.keys import partition_state_key
from store.online.dead_letters import REPLAYED, REPLAYING, KeptLetter, change_letter, read_letters
from store.online.stream_log import read_states
from store.online.stream_owners import own
from store.online.views import say
from store.requests import PushRequest
from store.stream.context import StreamContext
from store.stream.feeding import FedRow, Feeder, checked_fed, parsed_row
from store.stream.inbox import Inbox
from store.stream.ownership import LEASE_MS, Renewal, worker_name

_TASK = "dead-letters"


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of one dead letter: `problem` says why it could not be replayed, "" if it was."""

    number: int
    problem: str = ""


def all_letters(context: StreamContext) -> Iterator[KeptLetter]:
    """Yields the dead letters that are kept, the oldest first."""
    after = 0
    while letters := context.session.hold(read_letters(context.project, after)):
        yield from letters
        after = letters[-1].number


def replay(context: StreamContext, numbers: Sequence[int], row: str | None = None) -> list[Replay]:
    """Puts the rows of dead letters into the log, and returns what became of each.

    Args:
        numbers: of the letters; none for all that wait.
        row: a JSON object that stands for the row of the one letter that is named.

    Raises:
        UnknownObject: there is no letter of a number, or it was replayed.
        MaterializationBusy: somebody else replays letters.
        OnlineStoreError, SourceError: as their names say; the same call goes on where it was cut off.
    """
    if row is not None and len(numbers) != 1:
        raise InputError("a corrected row stands for the row of one letter; give its number")
    open_letters = {kept.number: kept for kept in all_letters(context) if kept.state != REPLAYED}
    unknown = [number for number in numbers if number not in open_letters]
    if unknown:
        raise UnknownObject(f"no dead letter {unknown[0]} waits; 'larder deadletter list' shows those that do")
    wanted = numbers or [number for number, kept in open_letters.items() if kept.letter.to]
    with _alone(context):
        return [_replay(context, open_letters[number], row) for number in wanted]


def _replay(context: StreamContext, kept: KeptLetter, row: str | None) -> Replay:
    letter = kept.letter
    if not letter.to:
        return Replay(
            kept.number, "it cannot be replayed: the rest of its event is applied, or its row was too long to be kept"
        )
    origin = f"letter:{kept.number}"
    content = letter.row if row is None else row
    fed = FedRow(origin, (1, 0), content.encode(), letter.to)
    if kept.state == REPLAYING and _taken_by(context, origin):
        _finish(context, kept, origin)
        return Replay(kept.number)
    try:
        values = parsed_row(fed)
        columns = {name: [value] for name, value in values.items()}
        push = checked_fed(context, PushRequest(letter.push_source, columns, letter.to))
    except InputError as error:
        return Replay(kept.number, str(error))
    if kept.state != REPLAYING:
        if not context.session.hold(change_letter(context.project, kept, REPLAYING)):
            return Replay(kept.number, "somebody else has changed it meanwhile")
        kept = kept._replace(state=REPLAYING)
    Feeder(context, Inbox(context, letter.push_source)).write(push, [fed])
    _finish(context, kept, origin)
    return Replay(kept.number)


def _finish(context: StreamContext, kept: KeptLetter, origin: str) -> None:
    context.session.hold(change_letter(context.project, kept, REPLAYED))
    # From now on its state tells that it was replayed.
    for partition in _taken_by(context, origin):
        state = partition_state_key(context.project, partition)
        context.session.hold(say([("HDEL", state, f"from:{origin}")]))


def _taken_by(context: StreamContext, origin: str) -> list[int]:
    """Returns the partitions that have taken something from an origin."""
    states = context.session.hold(read_states(context.log, range(context.log.partitions)))
    return [partition for partition, state in enumerate(states) if origin in state.taken]


@contextmanager
def _alone(context: StreamContext) -> Iterator[None]:
    """Keeps others from replaying meanwhile."""
    name = worker_name()
    owner = context.session.hold(own(context.project, _TASK, name, LEASE_MS))
    if owner is None:
        raise MaterializationBusy(
            f"dead letters of project {context.project!r} are being replayed by another command; wait for it to end "
            f"(the lease of a killed one lapses after {LEASE_MS // 1_000} s)"
        )
    renewal = Renewal(context, name)
    renewal.owned[_TASK] = owner
    renewal.start()
    try:
        yield
    finally:
        renewal.close()
