"""What the demo does with the server: score flights that are about to leave, and hold lookups against training."""

import statistics
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pandas as pd

from demo.instants import LATE_MINUTES, NEW_YORK
from demo.learning import SERVICES, Learned, on_demand_features
from demo.lookups import SHOWN_MAX, Answer, LookupClient, Proof, as_training_columns, prove, rows_ahead
from demo.printer import Printer
from demo.runs import CLOCK_START
from demo.training import entity_rows

if TYPE_CHECKING:
    from feast import FeatureStore

KEYS_FOR = timedelta(hours=36)
"""Keys of the proof: those of all flights scheduled within this after the clock's start, some 1,300."""
KEYS_MIN = 1_000
SCORED_FROM, SCORED_UNTIL = timedelta(hours=1), timedelta(hours=2)
"""Flights that are scored: those for which the prediction falls due in the hour from now."""
SCORED_SHOWN = 8
SINGLE_LOOKUPS = 200
_SERVICE = SERVICES[-1]


class ServedFlights:
    """The flights around the clock's start, asked about over HTTP."""

    def __init__(self, printer: Printer, client: LookupClient, flights: pd.DataFrame) -> None:
        self._printer = printer
        self._client = client
        self._flights = flights

    def score(self, learned: Learned) -> None:
        """Looks up the flights that leave in the hour after next, scores them, and tells what became of them."""
        due = self._scheduled(CLOCK_START + SCORED_FROM, CLOCK_START + SCORED_UNTIL)
        rows = entity_rows(due)
        with self._printer.step("Look features up over HTTP and score flights with them") as report:
            report("lookups")
            answer = self._client.look_up(rows, _SERVICE)
            latency_ms_p50 = statistics.median(self._latencies_ms(rows))
            scored = as_training_columns(answer, rows, learned.schema)
            due = due.assign(probability=learned.model.probabilities(scored))
        self._printer.note(
            f"{len(due)} flights leave in the hour after next. One flight, {len(answer.features)} features, one "
            f"request: {latency_ms_p50:.1f} ms (median of {SINGLE_LOOKUPS}). Highest and lowest risk:"
        )
        ranked = due.sort_values("probability", ascending=False)
        shown = pd.concat([ranked.head(SCORED_SHOWN // 2), ranked.tail(SCORED_SHOWN // 2)])
        headings = ["flight", "from-to", "leaves", "risk", "what happened"]
        self._printer.table(headings, [_risk(row) for _, row in shown.iterrows()], left=3)
        arrived = ranked[ranked["arrival_delay_minutes"].notna()]
        late = (arrived["arrival_delay_minutes"] > LATE_MINUTES).to_numpy()
        half = len(arrived) // 2
        self._printer.note(
            f"Of the {half} at higher risk that arrived, {int(late[:half].sum())} were late; "
            f"of the other {len(arrived) - half}, {int(late[half:].sum())}."
        )

    def prove(self, store: "FeatureStore") -> bool:
        """Returns whether the looked-up features of over a thousand keys are the training set's at the same time."""
        rows = entity_rows(self._scheduled(CLOCK_START, CLOCK_START + KEYS_FOR)).reset_index(drop=True)
        service = store.get_feature_service(_SERVICE)
        on_demand = on_demand_features(store, service)
        with self._printer.step("Hold the lookups against a training set for the same keys and time") as report:
            report("looking up")
            answer = self._client.look_up(rows, _SERVICE)
            ahead = rows_ahead(answer, on_demand, CLOCK_START)
            if ahead:
                rows = rows.drop(index=ahead).reset_index(drop=True)
                answer = self._client.look_up(rows, _SERVICE)
            report("point-in-time joins")
            training = store.get_historical_features(
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
        self._tell(proof, answer)
        return not proof.differences and proof.keys >= KEYS_MIN

    def _tell(self, proof: Proof, answer: Answer) -> None:
        self._printer.table(
            ["status online", "values"], [[name, f"{n:,}"] for name, n in sorted(proof.statuses.items())]
        )
        self._printer.note(
            f"{proof.keys:,} keys x {len(answer.features)} features, {proof.compared:,} values at "
            f"{answer.request_time:%H:%M:%S} UTC: {len(proof.differences):,} differences."
        )
        for each in proof.differences[:SHOWN_MAX]:
            self._printer.note(
                f"{dict(each.key)} {each.feature}: online {each.online!r} ({each.status}), training {each.training!r}"
            )
        if proof.keys < KEYS_MIN:
            self._printer.note(f"That is fewer than {KEYS_MIN:,} keys, too few to prove anything.")

    def _latencies_ms(self, rows: pd.DataFrame) -> list[float]:
        positions = [position % len(rows) for position in range(SINGLE_LOOKUPS)]
        return [self._client.look_up(rows.iloc[[position]], _SERVICE).latency_ms for position in positions]

    def _scheduled(self, start: datetime, end: datetime) -> pd.DataFrame:
        departure = self._flights["scheduled_departure_at"]
        return self._flights[(departure >= start) & (departure < end)]


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
