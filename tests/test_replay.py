"""The clock of a replay: it stands still but for the replay, never goes back, and all processes read the same."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store.clock import CLOCK_VARIABLE, Clock, clock_for, restart_clock, to_us
from store.clock_position import Position
from store.errors import ConfigError, InputError
from store.replay import replaying

START = datetime(2013, 12, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
JOIN = {CLOCK_VARIABLE: "replay"}

TELL = """
import sys
from pathlib import Path
from store.clock import clock_for
clock = clock_for(Path(sys.argv[1]))
for _ in sys.stdin:
    print(clock.now().isoformat(), flush=True)
"""
RUN_AHEAD = """
import sys
from pathlib import Path
from store.clock_position import Position
position = Position(Path(sys.argv[1]), is_writable=True)
for half in range(1, 200_000):
    position.write_us(half << 32 | half)
"""


def test_it_stands_still_but_for_the_replay(repo: Path) -> None:
    with replaying(repo, START) as replay:
        clock = clock_for(repo, JOIN)
        assert (clock.now(), clock.is_system) == (START, False)
        assert clock.now_us() == clock.now_us() == to_us(START)
        replay.advance(START + HOUR)
        assert clock.now() == replay.now() == START + HOUR
        replay.advance((START + HOUR).replace(tzinfo=None))
    assert clock_for(repo, {}).now() == START + HOUR


def test_processes_see_it_move_with_and_without_the_variable(repo: Path) -> None:
    with replaying(repo, START) as replay:
        environ = {name: value for name, value in os.environ.items() if name != CLOCK_VARIABLE}
        others = [
            subprocess.Popen(
                [sys.executable, "-c", TELL, str(repo)],
                env=environ | setting,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for setting in ({}, JOIN)
        ]
        for hours in range(3):
            replay.advance(START + hours * HOUR)
            for other in others:
                assert other.stdin is not None
                assert other.stdout is not None
                other.stdin.write("\n")
                other.stdin.flush()
                assert other.stdout.readline().strip() == (START + hours * HOUR).isoformat()
        for other in others:
            other.communicate()
            assert other.returncode == 0


def test_it_never_goes_back(repo: Path) -> None:
    with replaying(repo, START) as replay:
        with pytest.raises(InputError, match=r"stands at 2013-12-05T00:00:00\+00:00 and cannot go back to .*23:59:59"):
            replay.advance(START - timedelta(seconds=1))
        assert replay.now() == START
        replay.advance(START)


def test_a_replay_goes_on_where_the_last_one_ended_or_begins_anew(repo: Path) -> None:
    with replaying(repo, START) as replay:
        replay.advance(START + HOUR)
    follower = clock_for(repo, JOIN)
    with replaying(repo) as replay:
        assert replay.now() == START + HOUR
    with replaying(repo, START):
        assert follower.now() == START  # one that follows goes along


def test_one_replays_at_a_time(repo: Path) -> None:
    with replaying(repo, START), pytest.raises(ConfigError, match="another process replays"), replaying(repo):
        pass
    with replaying(repo):
        pass


@pytest.mark.parametrize("kept", ["nothing", "a clock that runs"])
def test_without_a_replay_there_is_nothing_to_join_or_go_on_with(repo: Path, kept: str) -> None:
    if kept != "nothing":
        restart_clock(repo, START)
    with pytest.raises(ConfigError, match="LARDER_CLOCK='replay', but no replay has set the clock"):
        clock_for(repo, JOIN)
    with pytest.raises(ConfigError, match="begin one with a start"), replaying(repo):
        pass


def test_a_clock_that_runs_takes_its_place(repo: Path) -> None:
    with replaying(repo, START):
        pass
    assert clock_for(repo, {CLOCK_VARIABLE: START.isoformat()}).position is None
    assert clock_for(repo, {}).now() >= START


@pytest.mark.parametrize("content", [None, b"", b"larder.2" + bytes(8), b"larder.1" + bytes(9)])
def test_a_position_that_is_none_is_named(repo: Path, content: bytes | None) -> None:
    with replaying(repo, START):
        pass
    path = repo / "data" / "clock.position"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"clock\.position"):
        clock_for(repo, {})


@pytest.mark.parametrize("content", ["[]", "{}", json.dumps({"is_replay": True}), json.dumps({"start_us": "x"})])
def test_a_clock_file_that_is_none_is_named(repo: Path, content: str) -> None:
    (repo / "data" / "clock.json").write_text(content)
    with pytest.raises(ConfigError, match=r"clock\.json"):
        clock_for(repo, {})


def test_no_reader_sees_half_of_an_instant(repo: Path) -> None:
    with replaying(repo, START):
        path = repo / "data" / "clock.position"
        mine = Position(path, is_writable=True)
        mine.write_us(0)
        writer = subprocess.Popen([sys.executable, "-c", RUN_AHEAD, str(path)])
        last = 0
        while writer.poll() is None:
            for _ in range(10_000):
                now = mine.read_us()
                assert now >> 32 == now & 0xFFFFFFFF
                assert now >= last
                last = now
        assert writer.returncode == 0
        assert mine.read_us() == 199_999 << 32 | 199_999


def test_files_are_dated_by_the_clock_as_far_as_that_can_be_told(repo: Path) -> None:
    assert Clock(5).of_system_us(100) == 105
    with replaying(repo, START) as replay:
        replay.advance(START + HOUR)
        clock = clock_for(repo, {})
        assert clock.began_us is not None
        began_us, began_system_us = clock.began_us
        assert clock.of_system_us(began_system_us - 7) == began_us - 7 == to_us(START) - 7
        assert clock.of_system_us(began_system_us + 1) == to_us(START + HOUR)
