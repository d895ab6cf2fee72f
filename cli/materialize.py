"""`larder materialize`: what Feast's own commands do, and beforehand what that would be."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from store.clock import clock_for, said
from store.dry_run import planned_materializations
from store.engine import PlannedMaterialization
from store.errors import InputError
from store.kernel.coverage import BEGINNING_US, Interval
from store.requests import MaterializeRequest
from store.service import StoreService
from store.snapshot import RegistrySnapshots, load_config


def run(
    repo: Path, views: Sequence[str], *, start: str | None, end: str | None, is_dry_run: bool, is_json: bool
) -> int:
    """Materializes, or says what would be; returns the exit status.

    Raises:
        LarderError: as `StoreService.materialize` and `planned_materializations` raise.
    """
    since = None if start is None else _instant("--start", start)
    until = clock_for(repo.resolve()).now() if end is None else _instant("--end", end)
    if not is_dry_run:
        request = MaterializeRequest(start=since, end=until, feature_views=tuple(views) or None)
        StoreService.open(repo).materialize(request)
        return 0
    snapshots = RegistrySnapshots(load_config(repo), repo)
    snapshots.refresh()
    plans = planned_materializations(snapshots.current().store, since, until, views or None)
    print(json.dumps([_as_json(plan) for plan in plans], indent=2) if is_json else "\n".join(map(_line, plans)))
    return 0


def _instant(option: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is no instant; write it like 2013-12-01T12:00:00Z") from error


def _as_json(plan: PlannedMaterialization) -> dict[str, object]:
    return {
        "feature_view": plan.view,
        "is_rebuild": plan.is_rebuild,
        "intervals": [[_said(interval.start_us), said(interval.end_us)] for interval in plan.intervals],
        "rows": plan.row_count,
    }


def _line(plan: PlannedMaterialization) -> str:
    what = "rebuild from" if plan.is_rebuild else "read"
    intervals = ", ".join(map(_interval, plan.intervals)) or "nothing"
    return f"{plan.view}: {what} {intervals}; write {plan.row_count:,} rows at most"


def _interval(interval: Interval) -> str:
    return f"[{_said(interval.start_us)}, {said(interval.end_us)})"


def _said(start_us: int) -> str:
    return "the beginning" if start_us == BEGINNING_US else said(start_us)
