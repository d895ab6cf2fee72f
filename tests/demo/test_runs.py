"""Runs beside each other: one clock, one builder at a time; and children that never outlive the demo."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from demo.processes import ChildFailed, Children, Interrupted, interruptible, uninterrupted
from demo.runs import CLOCK_RUNS_FOR, CLOCK_START, RunFolder, digest_of
from store.clock import CLOCK_VARIABLE, restart_clock

HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from demo.runs import RunFolder
    with RunFolder(Path(sys.argv[1])).on_the_clock():
        print("holding", flush=True)
        sys.stdin.read()
""")
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


@pytest.fixture(autouse=True)
def demo_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CLOCK_VARIABLE, CLOCK_START.isoformat())


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, f"{text!r} does not appear"
        time.sleep(0.01)


def test_run_alone_starts_the_clock_anew(repo: Path) -> None:
    restart_clock(repo, CLOCK_START - CLOCK_RUNS_FOR)
    with RunFolder(repo).on_the_clock() as clock:
        assert 0 <= (clock.now() - CLOCK_START).total_seconds() < 20


def test_second_copy_joins_the_clock_of_the_first(repo: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(repo)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        before = (repo / "data" / "clock.json").read_text()
        with RunFolder(repo).on_the_clock():
            assert (repo / "data" / "clock.json").read_text() == before
    finally:
        holder.communicate("")
    time.sleep(0.01)
    with RunFolder(repo).on_the_clock():
        assert (repo / "data" / "clock.json").read_text() != before


def test_clock_that_has_run_too_long_is_not_joined(repo: Path) -> None:
    with RunFolder(repo).on_the_clock():
        restart_clock(repo, CLOCK_START)
        kept = (repo / "data" / "clock.json").read_text()
        offset = int(kept.partition('"offset_us": ')[2].rstrip("}"))
        late = offset + int((CLOCK_RUNS_FOR.total_seconds() + 60) * 1e6)
        (repo / "data" / "clock.json").write_text(kept.replace(str(offset), str(late)))
        with pytest.raises(TimeoutError, match="another copy of the demo"), RunFolder(repo).on_the_clock():
            pytest.fail("joined a clock by which new rows are due")


def test_step_stands_until_its_digest_changes_or_it_is_taken_back(repo: Path) -> None:
    folder = RunFolder(repo)
    assert not folder.stands("apply", "a")
    folder.finished("apply", "a")
    assert RunFolder(repo).stands("apply", "a")
    assert not folder.stands("apply", "b")
    folder.finished("apply", None)
    assert not folder.stands("apply", "a")
    (folder.path / "steps.json").write_text("{torn")
    assert not folder.stands("apply", "a")


def test_digest_changes_with_every_part() -> None:
    digests = {digest_of({"a": b"1"}), digest_of({"a": b"2"}), digest_of({"b": b"1"}), digest_of({"a": b"1"}, "x")}
    assert len(digests) == 4


def test_failed_child_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    children = Children(os.environ)
    child = children.start(
        [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"], tmp_path / "log", tmp_path
    )
    with pytest.raises(ChildFailed, match=r"(?s)it ended with exit code 3.*the reason"):
        children.finish(child, "it", tmp_path / "log")
    children.close()


@pytest.mark.parametrize("command", [SLEEPER, STUBBORN])
def test_no_child_outlives_close(tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demo.processes.STOP_SECONDS", 0.5)
    children = Children(os.environ)
    child = children.start(command, tmp_path / "log", tmp_path)
    wait_for(tmp_path / "log", "up")
    children.close()
    assert child.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_the_demo_and_a_second_one_does_not_stop_the_cleaning_up(number: signal.Signals) -> None:
    cleaned = False
    with pytest.raises(Interrupted) as stop, interruptible():  # noqa: PT012 - a signal comes between two statements
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)
            cleaned = True
    assert cleaned
    assert stop.value.exit_code == 128 + number


def test_error_that_a_library_makes_of_a_signal_is_still_a_stop() -> None:
    with pytest.raises(Interrupted) as stop, interruptible():  # noqa: PT012 - what a library does
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except Interrupted:
            raise RuntimeError("Query interrupted") from None
    assert stop.value.exit_code == 130


def test_error_without_a_signal_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError


def test_signal_waits_for_an_uninterrupted_block() -> None:
    finished = False
    with pytest.raises(Interrupted), interruptible(), uninterrupted():  # noqa: PT012 - and before the block ends
        os.kill(os.getpid(), signal.SIGTERM)
        finished = True
    assert finished
