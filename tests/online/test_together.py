"""Several conversations in the same round trips: each hears its own replies, and what is wrong with one is its own."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from store.online.commands import Command
from store.online.conversations import Conversation, together


def speaker(name: str, batches: Sequence[int], heard: list[Any], fails_after: int = -1) -> Conversation[None]:
    """Says batches of so many commands; each command is answered by what it says."""
    for number, count in enumerate(batches):
        if number == fails_after:
            raise ValueError(name)
        said: list[Command] = [(name, number, place) for place in range(count)]
        heard.append((said, (yield said)))


@given(st.lists(st.lists(st.integers(0, 3), max_size=4), max_size=5), st.data())
def test_each_hears_its_own_replies_in_as_many_round_trips_as_the_longest_has(
    talks: list[list[int]], data: st.DataObject
) -> None:
    heard: list[list[Any]] = [[] for _ in talks]
    fails = [data.draw(st.integers(-1, len(batches))) for batches in talks]
    conversations = {
        place: speaker(str(place), batches, heard[place], fails[place]) for place, batches in enumerate(talks)
    }
    everyone = together(conversations)
    round_trips = 0
    replies: Any = None
    while True:
        try:
            commands = everyone.send(replies)
        except StopIteration as end:
            raised = end.value
            break
        round_trips += 1
        replies = list(commands)
    for place, batches in enumerate(talks):
        has_failed = 0 <= fails[place] < len(batches)
        assert isinstance(raised[place], ValueError) == has_failed
        assert len(heard[place]) == (fails[place] if has_failed else len(batches))
        assert all(said == answered for said, answered in heard[place])
    assert round_trips == max(map(len, heard), default=0)


def test_a_batch_that_fails_closes_all_of_them() -> None:
    heard: list[Any] = []
    conversations = {name: speaker(name, [1, 1], heard) for name in "ab"}
    everyone = together(conversations)
    next(everyone)
    everyone.close()
    assert not heard
    assert all(conversation.gi_frame is None for conversation in conversations.values())
