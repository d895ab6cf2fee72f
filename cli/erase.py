"""`larder erase`: what is erased and what is left, as lines for people or as JSON for machines."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from store.erasure import Eraser, Erasure, Holdings
from store.errors import InputError
from store.offline.erasure import FileRows
from store.snapshot import RegistrySnapshots, load_config
from store.stream.erasing import StreamRows


def run(repo: Path, key: str, *, is_dry_run: bool, is_confirmed: bool, is_json: bool) -> int:
    """Erases the rows of an entity, or with `is_dry_run` only counts them; returns the exit status.

    The status is 1 if rows remain in what Larder owns, or if the user's own files could not be searched.

    Raises:
        InputError: nobody is there to be asked, and `is_confirmed` is not set.
        LarderError: as `Eraser` raises.
    """
    snapshots = RegistrySnapshots(load_config(repo), repo)
    snapshots.refresh()
    eraser = Eraser(snapshots.current().store, key)
    before = eraser.holdings()
    if is_dry_run:
        _show(_holdings_as_json(before), list(_told(before, "would erase")), is_json=is_json)
        return 1 if before.unread else 0
    if not is_confirmed:
        _confirm(before)
    erasure = eraser.erase()
    _show(_erasure_as_json(erasure), list(_proven(erasure)), is_json=is_json)
    return 0 if erasure.is_proven else 1


def _confirm(before: Holdings) -> None:
    if not sys.stdin.isatty():
        raise InputError("erasing cannot be undone, and nobody is there to be asked; give --yes, or --dry-run to count")
    for line in _told(before, "would erase"):
        typer.echo(line, err=True)
    if not typer.confirm("Erase these rows? This cannot be undone.", err=True):
        raise typer.Exit(1)


def _show(told: dict[str, Any], lines: Sequence[str], *, is_json: bool) -> None:
    print(json.dumps(told, indent=2) if is_json else "\n".join(lines))


def _told(holdings: Holdings, verb: str) -> Iterator[str]:
    yield f"Redis: {verb} {holdings.redis.rows} rows of {holdings.redis.keys} keys"
    yield from _stream(holdings.stream, verb)
    yield from _landed(holdings.landed, verb)
    yield from _users(holdings)


def _stream(rows: StreamRows, verb: str) -> Iterator[str]:
    if rows.total:
        yield (
            f"on their way: {verb} {rows.log} rows of the event log, {rows.inboxes} of inboxes, {rows.letters} dead "
            "letters"
        )


def _landed(landed: Sequence[FileRows], verb: str) -> Iterator[str]:
    yield f"landed files: {verb} {sum(file.rows for file in landed)} rows of {len(landed)} files"
    for file in landed:
        yield f"  {file.rows} rows in {file.path}"


def _users(holdings: Holdings) -> Iterator[str]:
    if holdings.users:
        yield "your own files that hold such rows, which Larder never changes, and reads again at the next run:"
    for file in holdings.users:
        yield f"  {file.rows} rows in {file.path}"
    for problem in holdings.unread:
        yield f"not searched: {problem}"


def _proven(erasure: Erasure) -> Iterator[str]:
    yield f"Redis: erased {erasure.redis.rows} rows of {erasure.redis.keys} keys"
    yield from _stream(erasure.stream, "erased")
    yield from _landed(erasure.landed, "erased")
    after = erasure.after
    if after.is_clean and not erasure.looked_up_rows:
        yield f"proof: {erasure.looked_up_keys} erased keys looked up, none found; no row left in Redis or landed files"
    else:
        yield (
            f"NOT ERASED: {after.redis.rows} rows of {after.redis.keys} keys are in Redis, {erasure.looked_up_rows} "
            "rows were found by lookups; they were written meanwhile: erase again"
        )
        yield from _stream(after.stream, "there are")
        for file in after.landed:
            yield f"  {file.rows} rows in {file.path}: written meanwhile, or still read by a retrieval; erase again"
    yield from _users(after)


def _holdings_as_json(holdings: Holdings) -> dict[str, Any]:
    return {
        "redis": {"keys": holdings.redis.keys, "rows": holdings.redis.rows},
        "stream": asdict(holdings.stream),
        "landed_files": _files(holdings.landed),
        "your_files": _files(holdings.users),
        "not_searched": list(holdings.unread),
    }


def _erasure_as_json(erasure: Erasure) -> dict[str, Any]:
    return {
        "erased": {
            "redis": {"keys": erasure.redis.keys, "rows": erasure.redis.rows},
            "stream": asdict(erasure.stream),
            "landed_files": _files(erasure.landed),
        },
        "left": _holdings_as_json(erasure.after),
        "looked_up": {"keys": erasure.looked_up_keys, "rows_found": erasure.looked_up_rows},
        "is_proven": erasure.is_proven,
    }


def _files(files: Sequence[FileRows]) -> list[dict[str, Any]]:
    return [{"path": file.path, "rows": file.rows} for file in files]
