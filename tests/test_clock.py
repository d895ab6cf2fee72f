"""One clock for all processes of a repo: the system's, or one that starts at a stated instant."""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.clock import CLOCK_VARIABLE, clock_for, from_us, restart_clock, to_us
from store.errors import ConfigError

START = datetime(2013, 12, 1, 12, tzinfo=UTC)


def test_without_a_setting_it_is_the_systems_clock(repo: Path) -> None:
    clock = clock_for(repo, {})
    assert clock.is_system
    assert abs(clock.now_us() - time.time_ns() // 1_000) < 10_000_000
    assert not (repo / "data" / "clock.json").exists()


def test_a_started_clock_runs_on_from_its_instant(repo: Path) -> None:
    clock = clock_for(repo, {CLOCK_VARIABLE: START.isoformat()})
    assert not clock.is_system
    first = clock.now()
    assert START <= first < START + timedelta(minutes=1)
    assert clock.now() >= first


def test_processes_of_a_repo_agree(repo: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from store.clock import clock_for; "
        "print(clock_for(Path(sys.argv[1])).offset_us)"
    )
    environ = os.environ | {CLOCK_VARIABLE: "2013-12-01T12:00:00Z"}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(repo)], env=environ, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    offsets = {process.communicate()[0] for process in processes}
    assert offsets == {f"{clock_for(repo, {CLOCK_VARIABLE: START.isoformat()}).offset_us}\n".encode()}


def test_a_process_without_the_setting_joins_the_clock_that_was_started(repo: Path) -> None:
    started = clock_for(repo, {CLOCK_VARIABLE: START.isoformat()})
    assert clock_for(repo, {}) == started
    (repo / "data" / "clock.json").unlink()
    assert clock_for(repo, {}).is_system


def test_another_instant_starts_another_clock(repo: Path) -> None:
    clock_for(repo, {CLOCK_VARIABLE: START.isoformat()})
    later = START + timedelta(days=3)
    assert clock_for(repo, {CLOCK_VARIABLE: later.isoformat()}).now() >= later


def test_a_restarted_clock_begins_anew(repo: Path) -> None:
    setting = {CLOCK_VARIABLE: START.isoformat()}
    kept = clock_for(repo, setting)
    path = repo / "data" / "clock.json"
    aged = json.loads(path.read_text())
    path.write_text(json.dumps(aged | {"offset_us": aged["offset_us"] + 86_400_000_000}))
    assert clock_for(repo, setting).now() > kept.now() + timedelta(hours=23)
    restart_clock(repo, START)
    assert clock_for(repo, setting).now() < START + timedelta(minutes=1)


@pytest.mark.parametrize(
    "setting", ["yesterday", "2013-13-01", "replay ", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"]
)
def test_a_wrong_setting_is_refused_by_name(repo: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=CLOCK_VARIABLE):
        clock_for(repo, {CLOCK_VARIABLE: setting})


def test_a_broken_clock_file_is_named(repo: Path) -> None:
    (repo / "data" / "clock.json").write_text("{")
    for setting in ({CLOCK_VARIABLE: START.isoformat()}, {}):
        with pytest.raises(ConfigError, match=r"clock\.json"):
            clock_for(repo, setting)


@given(
    st.datetimes(timezones=st.none() | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23))))
)
def test_instants_round_trip_and_a_missing_zone_is_utc(instant: datetime) -> None:
    try:
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        expected = aware.astimezone(UTC)
    except OverflowError:
        return
    assert from_us(to_us(instant)) == expected
