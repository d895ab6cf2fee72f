"""Runs beside each other: one builds at a time, and none makes anew what another uses; no child outlives the demo."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from demo.processes import ChildFailed, Children, Interrupted, interruptible, uninterrupted
from demo.runs import RunFolder, digest_of

HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from demo.runs import RunFolder
    with RunFolder(Path(sys.argv[1])).using() as use:
        print("using", flush=True)
        if sys.stdin.readline():
            use.wait_until_alone(lambda: print("waiting", flush=True))
            print("alone", flush=True)
            sys.stdin.read()
""")
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
]


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline, f"{text!r} does not appear"
        time.sleep(0.01)


def test_what_stands_is_made_anew_only_once_nobody_else_uses_it(repo: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(repo)]
    waiting, using = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    )
    assert waiting.stdin
    assert waiting.stdout
    assert using.stdout
    assert (waiting.stdout.readline(), using.stdout.readline()) == ("using\n", "using\n")
    waiting.stdin.write("\n")
    waiting.stdin.flush()
    assert waiting.stdout.readline() == "waiting\n"
    using.communicate("")
    assert waiting.stdout.readline() == "alone\n"
    with RunFolder(repo).using() as use:  # the lock is shared again
        waiting.communicate("")
        use.wait_until_alone(lambda: pytest.fail("waits for nobody"))


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
