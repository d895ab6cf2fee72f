"""`larder deadletter`: rows that did not fit, listed with their reasons and put into the log once more."""

import json
from collections.abc import Sequence
from pathlib import Path

from store.clock import said
from store.online.dead_letters import REPLAYED, KeptLetter
from store.stream.context import StreamContext
from store.stream.replay import all_letters, replay

_ROW_CHARS = 500
"""Of a row, in a line for a person; the JSON form has all of it."""


def list_letters(repo: Path, *, is_all: bool, is_json: bool) -> int:
    """Prints the dead letters that wait, or all that are kept; returns the exit status.

    Raises:
        ConfigError, OnlineStoreError: as their names say.
    """
    context = StreamContext(repo.resolve())
    try:
        letters = [kept for kept in all_letters(context) if is_all or kept.state != REPLAYED]
    finally:
        context.close()
    if is_json:
        print(json.dumps([_as_json(kept) for kept in letters], indent=2))
        return 0
    for kept in letters:
        letter = kept.letter
        fixed = "" if letter.to else ", cannot be replayed"
        print(f"{kept.number}  {said(letter.at_us)}  {letter.push_source}  from {letter.place}  {kept.state}{fixed}")
        print(f"   {letter.reason}")
        print(f"   {letter.row[:_ROW_CHARS]}")
    print(f"{len(letters)} dead letters" if letters else "no dead letters")
    return 0


def replay_letters(repo: Path, numbers: Sequence[int], row: str | None, *, is_json: bool) -> int:
    """Puts the rows of dead letters into the log, of all that wait if none is named; returns 1 if one did not fit.

    Raises:
        UnknownObject: there is no such letter.
        MaterializationBusy, OnlineStoreError, SourceError: as their names say.
    """
    context = StreamContext(repo.resolve())
    try:
        replays = replay(context, numbers, row)
    finally:
        context.close()
    failed = [each for each in replays if each.problem]
    if is_json:
        print(json.dumps([{"number": each.number, "problem": each.problem or None} for each in replays], indent=2))
    else:
        for each in failed:
            print(f"{each.number}  {each.problem}")
        print(f"replayed {len(replays) - len(failed)} of {len(replays)} dead letters")
    return 1 if failed else 0


def _as_json(kept: KeptLetter) -> dict[str, object]:
    letter = kept.letter
    return {
        "number": kept.number,
        "state": kept.state,
        "found": said(letter.at_us),
        "push_source": letter.push_source,
        "from": letter.place,
        "to": letter.to or None,
        "reason": letter.reason,
        "row": letter.row,
    }
