"""`larder explain`: one entity key on both sides, as lines for people or as JSON for machines."""

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cli.instants import instant_us
from store.clock import said
from store.explain import Explanation, explain
from store.feast_values import json_converter
from store.kernel.codec import RowTimes
from store.kernel.reasons import EXPLANATIONS
from store.snapshot import RegistrySnapshots, load_config


def run(repo: Path, view: str, key: str, *, at: str | None, is_json: bool) -> int:
    """Prints what is known of one entity key of a view; returns the exit status.

    Raises:
        LarderError: as `explain` raises.
    """
    at_us = None if at is None else instant_us("--at", at)
    snapshots = RegistrySnapshots(load_config(repo), repo)
    snapshots.refresh()
    explanation = explain(snapshots.current().store, view, key, at_us)
    print(json.dumps(as_json(explanation), indent=2) if is_json else "\n".join(_lines(explanation)))
    return 0


def as_json(explanation: Explanation) -> dict[str, Any]:
    """Returns an explanation as objects that JSON has; instants in ISO 8601 with all their digits."""
    stored, state = explanation.inspection.stored, explanation.inspection.view.state
    types = {column.name: column.type_name for column in explanation.definition.join_keys}
    online = None if stored is None else {
        **_times(stored.header.times),
        "age_seconds": _age_us(explanation, stored.header.times) / 1e6,
        "came_by_push": stored.header.is_pushed,
        "schema_tag": stored.header.schema_tag,
        "layout": {column.name: column.type_name for column in stored.layout.columns},
        "stored_bytes": stored.stored_bytes,
        "key_expires_in_seconds": None if stored.expires_in_ms is None else stored.expires_in_ms / 1e3,
    }  # fmt: skip
    return {
        "feature_view": explanation.view,
        "key": {name: _plain(value, types[name]) for name, value in explanation.key.items()},
        "at": said(explanation.at_us),
        "ttl_seconds": explanation.definition.ttl_us / 1e6 or None,
        "generation": explanation.inspection.generation,
        "generation_being_built": state.building or None,
        "online_row": online,
        "training_row": None if explanation.training_times is None else _times(explanation.training_times),
        "agrees": explanation.agrees,
        "reason": explanation.reason,
        "features": [
            {
                "name": feature.column.name,
                "type": feature.column.type_name,
                "status": feature.status,
                "online": _plain(feature.online, feature.column.type_name),
                "training": _plain(feature.training, feature.column.type_name),
                "agrees": feature.agrees,
                "reason": feature.reason,
            }
            for feature in explanation.features
        ],
    }


def _times(times: RowTimes) -> dict[str, str | None]:
    created = None if times.created_us is None else _precise(times.created_us, times.created_ns)
    return {"event_time": _precise(times.event_us, times.event_ns), "created_time": created}


def _precise(instant_us: int, nanoseconds: int) -> str:
    """Returns an instant with all its digits: the nanoseconds stand behind six digits of microseconds."""
    if not nanoseconds:
        return said(instant_us)
    whole = said(instant_us - instant_us % 1_000_000)
    return whole.replace("+00:00", f".{instant_us % 1_000_000:06d}{nanoseconds:03d}+00:00")


def _age_us(explanation: Explanation, times: RowTimes) -> int:
    return explanation.at_us - times.event_us


def _plain(value: Any, type_name: str) -> Any:
    convert = json_converter(type_name)
    return value if value is None or convert is None else convert(value)


def _lines(explanation: Explanation) -> Iterator[str]:
    told = as_json(explanation)
    key = ", ".join(f"{name}={value!r}" for name, value in told["key"].items()) or "(no entity)"
    yield f"{explanation.view}  {key}  at {told['at']}"
    yield ""
    building = f", {told['generation_being_built']} is being built" if told["generation_being_built"] else ""
    yield f"online    {_online(explanation, told['online_row'])}"
    yield f"          generation {told['generation']}{building}{_coverage(explanation)}"
    if (row := told["online_row"]) is not None:
        layout = ", ".join(f"{name} {kind}" for name, kind in row["layout"].items())
        yield f"          schema tag {row['schema_tag']} ({layout}), {row['stored_bytes']} bytes"
    row = told["training_row"]
    yield f"training  {'no row' if row is None else _when(row)}"
    yield f"because   {explanation.reason}: {EXPLANATIONS[explanation.reason]}"
    yield ""
    yield from _table(
        [
            ("feature", "online", "status", "training", ""),
            *(
                (f["name"], _cell(f["online"]), f["status"], _cell(f["training"]), f["reason"] or "agrees")
                for f in told["features"]
            ),
        ]
    )


def _online(explanation: Explanation, row: dict[str, Any] | None) -> str:
    if row is None:
        return "no row"
    age = timedelta(seconds=abs(row["age_seconds"]))
    how_old = f"{age} old" if row["age_seconds"] >= 0 else f"{age} in the future"
    ttl_us = explanation.definition.ttl_us
    limit = f"ttl {timedelta(microseconds=ttl_us)}" if ttl_us else "no ttl"
    pushed = "pushed" if row["came_by_push"] else "materialized"
    left = row["key_expires_in_seconds"]
    expiry = "" if left is None else f", its key expires in {left:.0f} s"
    return f"{_when(row)}, {how_old}, {limit}, {pushed}{expiry}"


def _when(row: dict[str, Any]) -> str:
    created = f", created {row['created_time']}" if row["created_time"] else ", no created time"
    return f"event {row['event_time']}{created}"


def _coverage(explanation: Explanation) -> str:
    covered = explanation.inspection.view.state.coverage
    if not covered:
        return ", nothing materialized"
    return f", materialized up to {said(covered[-1].end_us)}"


def _cell(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
