"""What the demo tells of its lookups: how the day's flights were scored, and that training sees the same values."""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from demo.day import ServedDay
from demo.events import REPLAY_END
from demo.instants import LATE_MINUTES, NEW_YORK
from demo.learning import SERVICES, Learned, on_demand_features
from demo.lookups import (
    SHOWN_MAX,
    Answer,
    LookupClient,
    Proof,
    as_training_columns,
    prove,
    rows_ahead,
    together,
)
from demo.printer import Printer
from demo.training import entity_rows, marks
from store.files import write_atomically

if TYPE_CHECKING:
    from feast import FeatureStore

SERVED = SERVICES[-1]
KEYS_AROUND = timedelta(hours=18)
"""Keys of the proof: those of all flights scheduled so long before and after the day's end, some 1,300."""
KEYS_MIN = 1_000
SCORED_SHOWN = 8


@dataclass(frozen=True, slots=True)
class DayRecord:
    """What is told of a replayed day, kept beside the data.

    Attributes:
        shown: lines of the flights at highest and lowest risk.
        late: of the half of the flights that arrived with the higher risk and of the other: how many, how many late.
    """

    events: int
    readings: int
    lookups: int
    flights: int
    features: int
    latency_ms_p50: float
    auc: float
    shown: list[list[str]]
    late: list[list[int]]

    @classmethod
    def kept(cls, path: Path) -> "DayRecord | None":
        """Returns the record that a file holds, None where it holds none."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, path: Path) -> None:
        """Writes the record into a file."""
        write_atomically(path, json.dumps(asdict(self), indent=1).encode())


def scored(served: ServedDay, due: pd.DataFrame, learned: Learned) -> DayRecord:
    """Returns what the model made of the answers that a day's flights got.

    Args:
        due: the flights, in the order of the answers.
    """
    rows = as_training_columns(served.answers, served.rows, learned.schema)
    due = due.reset_index(drop=True).assign(probability=learned.model.probabilities(rows))
    ranked = due.sort_values("probability", ascending=False)
    shown = pd.concat([ranked.head(SCORED_SHOWN // 2), ranked.tail(SCORED_SHOWN // 2)])
    arrived = ranked[ranked["arrival_delay_minutes"].notna()]
    is_late = (arrived["arrival_delay_minutes"] > LATE_MINUTES).to_numpy()
    half = len(arrived) // 2
    pushed = dict(served.pushed)
    events = pushed.pop("departures_push") + pushed.pop("arrivals_push")
    return DayRecord(
        events=events,
        readings=sum(pushed.values()),
        lookups=len(served.answers),
        flights=len(due),
        features=len(served.answers[0].features),
        latency_ms_p50=served.latency_ms_p50,
        auc=marks(pd.Series(is_late), arrived["probability"].to_numpy()).auc,
        shown=[_risk(row) for _, row in shown.iterrows()],
        late=[[half, int(is_late[:half].sum())], [len(arrived) - half, int(is_late[half:].sum())]],
    )


def tell_day(printer: Printer, record: DayRecord, *, was_kept: bool) -> None:
    """Tells of a replayed day."""
    printer.note(
        f"{'Kept: ' if was_kept else ''}{record.events:,} departures, cancellations and arrivals and {record.readings} "
        f"readings of weather and boards, each pushed when it became known. Meanwhile {record.flights} flights were "
        f"looked up an hour before departure, {record.features} features each, in {record.lookups} requests: "
        f"{record.latency_ms_p50:.1f} ms (median). Highest and lowest risk:"
    )
    printer.table(["flight", "from-to", "leaves", "risk", "what happened"], record.shown, left=3)
    (upper, upper_late), (lower, lower_late) = record.late
    printer.note(
        f"Of the {upper} at higher risk that arrived, {upper_late} were late; of the other {lower}, {lower_late}. "
        f"AUC of the day: {record.auc:.3f}."
    )


class ServedFlights:
    """The flights around the day's end, asked about over HTTP."""

    def __init__(self, printer: Printer, client: LookupClient, flights: pd.DataFrame) -> None:
        self._printer = printer
        self._client = client
        self._flights = flights

    def prove(self, store: "FeatureStore", served: ServedDay | None) -> bool:
        """Returns whether looked-up features are the training set's, each at the time of its lookup.

        That is those of over a thousand keys now, and all that were served in the day, if it was replayed just now.
        """
        departure = self._flights["scheduled_departure_at"]
        around = departure.between(REPLAY_END - KEYS_AROUND, REPLAY_END + KEYS_AROUND, inclusive="left")
        rows = entity_rows(self._flights[around]).reset_index(drop=True)
        service = store.get_feature_service(SERVED)
        on_demand = on_demand_features(store, service)
        with self._printer.step("Hold lookups against a training set for the same keys and times") as report:
            report("looking up")
            answer = self._client.look_up(rows, SERVED)
            ahead = rows_ahead(answer, on_demand)
            if ahead:
                rows = rows.drop(index=ahead).reset_index(drop=True)
                answer = self._client.look_up(rows, SERVED)
            rows = rows.assign(event_timestamp=pd.Timestamp(answer.request_time))
            answers = [*(served.answers if served else ()), answer]
            if served:
                rows = pd.concat([served.rows, rows], ignore_index=True)
            report("point-in-time joins")
            training = store.get_historical_features(rows, service, filter_by_created_timestamp=True).to_arrow()
            report("comparing")
            proof = prove(together(answers), rows, training, on_demand)
        if ahead:
            self._printer.note(f"{len(ahead)} keys are left out: rows from after the lookup were pushed by hand.")
        self._tell(proof, answer, served)
        return not proof.differences and proof.keys >= KEYS_MIN

    def _tell(self, proof: Proof, answer: Answer, served: ServedDay | None) -> None:
        self._printer.table(
            ["status online", "values"], [[name, f"{n:,}"] for name, n in sorted(proof.statuses.items())]
        )
        of_the_day = f"the {len(served.rows):,} vectors of the day, and " if served else ""
        self._printer.note(
            f"{proof.keys:,} keys x {len(answer.features)} features: {of_the_day}{answer.count:,} "
            f"at {answer.request_time:%-d %B, %H:%M:%S} UTC. {proof.compared:,} values: {len(proof.differences):,} "
            "differences."
        )
        for each in proof.differences[:SHOWN_MAX]:
            self._printer.note(
                f"{dict(each.key)} {each.feature}: online {each.online!r} ({each.status}), training {each.training!r}"
            )
        if proof.keys < KEYS_MIN:
            self._printer.note(f"That is fewer than {KEYS_MIN:,} keys, too few to prove anything.")


def _risk(row: pd.Series) -> list[str]:
    leaves = row["scheduled_departure_at"].tz_convert(NEW_YORK)
    if row["is_cancelled"]:
        outcome = "cancelled"
    elif row["is_diverted"]:
        outcome = "diverted"
    else:
        outcome = f"{row['arrival_delay_minutes']:+.0f} min"
    number = f"{row['carrier']} {row['flight']}"
    return [number, f"{row['origin']}-{row['dest']}", f"{leaves:%H:%M}", f"{row['probability']:.0%}", outcome]
