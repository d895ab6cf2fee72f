"""The demo's model: who is asked about what and when, the split in time, the model and its marks.

A flight's prediction is made one hour before its scheduled departure: will it arrive more than 15 minutes late?
Cancelled and diverted flights never arrive where they should, so they have no label and are left out of training
and of the marks (they do count in the statistics that the features are made of).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from demo.instants import LATE_MINUTES, NEW_YORK

PREDICTED_BEFORE = pd.Timedelta(hours=1)
TRAINING_START = pd.Timestamp("2013-02-01", tz=NEW_YORK)
"""January is left for the statistics that look back 28 days."""
HOLDOUT_START = pd.Timestamp("2013-10-01", tz=NEW_YORK)
HOLDOUT_END = pd.Timestamp("2013-12-01", tz=NEW_YORK)
SAMPLE_EVERY = 2
"""Every second flight: about 136,000 rows, which fit and train in seconds and mark as well as all of them."""

SCHEDULE = (
    "carrier",
    "origin",
    "dest",
    "weekday",
    "distance_miles",
    "scheduled_minute_of_day",
    "scheduled_block_minutes",
)
"""What anyone can read in a timetable: the model from these alone is what the features have to beat."""

LABEL = "is_late"
_TIME = "event_timestamp"


@dataclass(frozen=True, slots=True)
class Marks:
    """How well probabilities fit what happened: the area under the ROC curve, log loss and Brier score."""

    auc: float
    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True)
class DelayModel:
    """A fitted classifier, the columns that it reads in their order, and the categories of those that are strings."""

    classifier: HistGradientBoostingClassifier
    columns: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]

    def probabilities(self, rows: pd.DataFrame) -> npt.NDArray[np.float64]:
        """Returns the probability that each flight arrives late.

        Shapes: `rows` has the model's columns as the training set has them, and `event_timestamp`.
        """
        return np.asarray(self.classifier.predict_proba(_inputs(rows, self.columns, self.categories))[:, 1])


def entity_rows(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the entity rows of flights: their keys, the instant of the prediction, the flight plan and the label.

    Shapes: one row per flight in the same order: origin, dest, tailnum, carrier, event_timestamp (one hour before
        the scheduled departure), the request fields, flight, weekday (Monday is 0), distance_miles, and the label,
        null for a flight that did not arrive at its destination.
    """
    scheduled = flights["scheduled_departure_at"]
    local = scheduled.dt.tz_convert(NEW_YORK)
    block = flights["scheduled_arrival_at"] - scheduled
    delay = flights["arrival_delay_minutes"].astype("Int64")
    return pd.DataFrame(
        {
            "origin": flights["origin"],
            "dest": flights["dest"],
            "tailnum": flights["tailnum"],
            "carrier": flights["carrier"],
            _TIME: scheduled - PREDICTED_BEFORE,
            "scheduled_minute_of_day": local.dt.hour * 60 + local.dt.minute,
            "scheduled_block_minutes": (block.dt.total_seconds() // 60).astype("int64"),
            "flight": flights["flight"],
            "weekday": local.dt.weekday,
            "distance_miles": flights["distance_miles"],
            LABEL: (delay > LATE_MINUTES).astype("boolean"),
        }
    )


def training_rows(flights: pd.DataFrame) -> pd.DataFrame:
    """Returns the entity rows to learn and mark with: every second flight with a label from February to November."""
    rows = entity_rows(flights)
    departure = flights["scheduled_departure_at"]
    wanted = rows[LABEL].notna() & (departure >= TRAINING_START) & (departure < HOLDOUT_END)
    sample = rows[wanted].iloc[::SAMPLE_EVERY].reset_index(drop=True)
    return sample.astype({LABEL: bool})


def is_holdout(rows: pd.DataFrame) -> pd.Series:
    """Returns which rows are held out: all the later ones, October and November, none earlier."""
    return rows[_TIME] >= HOLDOUT_START - PREDICTED_BEFORE


def fit(rows: pd.DataFrame, columns: Sequence[str]) -> DelayModel:
    """Returns a model fitted to rows with labels, reading the stated columns; the same rows give the same model."""
    usable = tuple(name for name in columns if not _is_list(rows[name]))
    categories = {name: tuple(sorted(rows[name].dropna().unique())) for name in usable if _is_text(rows[name])}
    classifier = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.06,
        max_leaf_nodes=20,
        min_samples_leaf=200,
        l2_regularization=5.0,
        max_features=0.5,
        categorical_features="from_dtype",
        early_stopping=False,
        random_state=13,
    )
    classifier.fit(_inputs(rows, usable, categories), rows[LABEL].astype(bool))
    return DelayModel(classifier, usable, categories)


def marks(is_late: pd.Series, probabilities: npt.NDArray[np.float64]) -> Marks:
    """Returns the marks of probabilities against what happened."""
    truth = is_late.astype(bool).to_numpy()
    return Marks(
        auc=float(roc_auc_score(truth, probabilities)),
        log_loss=float(log_loss(truth, probabilities)),
        brier=float(brier_score_loss(truth, probabilities)),
    )


def fit_and_mark(past: pd.DataFrame, future: pd.DataFrame, columns: Sequence[str]) -> tuple[DelayModel | None, Marks]:
    """Returns a model fitted to the past and its marks on the future; without columns, the past's base rate alone."""
    if not columns:
        base_rate = np.full(len(future), float(past[LABEL].astype(bool).mean()))
        return None, marks(future[LABEL], base_rate)
    model = fit(past, columns)
    return model, marks(future[LABEL], model.probabilities(future))


def _inputs(rows: pd.DataFrame, columns: Sequence[str], categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Returns the columns as the classifier reads them: categories, hours before the prediction, and floats."""
    inputs: dict[str, Any] = {}
    for name in columns:
        values = rows[name]
        if name in categories:
            inputs[name] = pd.Categorical(values, categories=list(categories[name]))
        elif isinstance(values.dtype, pd.DatetimeTZDtype):
            inputs[name] = ((rows[_TIME] - values).dt.total_seconds() / 3_600).to_numpy()
        else:
            inputs[name] = pd.to_numeric(values.astype("Float64")).to_numpy("float64", na_value=np.nan)
    return pd.DataFrame(inputs)


def _is_list(values: pd.Series) -> bool:
    present = values.dropna()
    return len(present) > 0 and isinstance(present.iloc[0], (list, tuple, np.ndarray))


def _is_text(values: pd.Series) -> bool:
    present = values.dropna()
    return len(present) > 0 and isinstance(present.iloc[0], str)
