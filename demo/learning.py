"""The demo's training set and model, kept beside the data as long as what they were made from stands."""

import json
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from demo.runs import definitions, digest_of
from demo.training import SCHEDULE, DelayModel, Marks, fit_and_mark, is_holdout, training_rows
from store.files import write_atomically

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore

SERVICES = ("delay_model_v1", "delay_model_v2")
"""Without windows, and with them; the last one is the one that the demo serves."""
TRAINING_SET = "flights_to_november"
"""The name under which Feast's registry knows the training set."""
LEARNING_STEPS = 4
_CODE = ("training.py", "learning.py")


@dataclass(frozen=True, slots=True)
class Learned:
    """The model of the last service, the marks of all models on the hold-out, and what they learned from."""

    model: DelayModel
    marks: Mapping[str, Marks]
    schema: pa.Schema
    rows: int
    holdout_rows: int
    was_kept: bool


class Learning:
    """Makes the training set and the models of a feature repo, or finds them where an earlier run left them."""

    def __init__(self, repo: Path, folder: Path, sources_digest: str) -> None:
        """Takes the repo, the folder to keep things in, and the digest of the sources."""
        self._repo = repo
        self._set = folder / "training_set.parquet"
        self._model = folder / "model.pickle"
        self._record = folder / "training.json"
        here = Path(__file__).parent
        code = {name: (here / name).read_bytes() for name in _CODE}
        self._digest = digest_of(code | definitions(repo), sources_digest, version("feast"), version("scikit-learn"))

    def kept(self, store: "FeatureStore") -> Learned | None:
        """Returns what an earlier run learned from the same things, or None."""
        try:
            record = json.loads(self._record.read_text())
            if record["digest"] != self._digest or not _is_registered(store):
                return None
            # Our own file in our own folder, named by a record that only this class writes.
            model = pickle.loads(self._model.read_bytes())  # noqa: S301
            schema = pq.read_schema(self._set)
        except (OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError, pa.ArrowInvalid):
            return None
        marks = {name: Marks(**values) for name, values in record["marks"].items()}
        return Learned(model, marks, schema, record["rows"], record["holdout_rows"], was_kept=True)

    def training_set(self, store: "FeatureStore", flights: pd.DataFrame) -> pa.Table:
        """Returns the training set: every feature of the served service as it was known at each prediction."""
        self._record.unlink(missing_ok=True)
        job = store.get_historical_features(
            entity_df=training_rows(flights),
            features=store.get_feature_service(SERVICES[-1]),
            filter_by_created_timestamp=True,
        )
        from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

        with warnings.catch_warnings():
            # Feast says at each that saved datasets are experimental.
            warnings.simplefilter("ignore", RuntimeWarning)
            store.create_saved_dataset(
                from_=job,
                name=TRAINING_SET,
                storage=SavedDatasetFileStorage(path=str(self._set)),
                tags={"model": "delay"},
                allow_overwrite=True,
            )
        return pq.read_table(self._set)

    def learn(self, store: "FeatureStore", table: pa.Table, report: Callable[[str], None]) -> Learned:
        """Returns the models fitted to the past and marked on the hold-out, and keeps them."""
        rows = table.to_pandas()
        held = is_holdout(rows)
        feature_sets = {"timetable only": list(SCHEDULE)}
        for name in SERVICES:
            feature_sets[name] = [*SCHEDULE, *feature_names(store.get_feature_service(name))]
        marks: dict[str, Marks] = {}
        model = None
        for name, columns in {"base rate": [], **feature_sets}.items():
            report(f"fitting: {name}")
            model, marks[name] = fit_and_mark(rows[~held], rows[held], columns)
        assert model is not None, "the last feature set has columns"
        write_atomically(self._model, pickle.dumps(model))
        record = {
            "digest": self._digest,
            "marks": {name: asdict(values) for name, values in marks.items()},
            "rows": len(rows),
            "holdout_rows": int(held.sum()),
        }
        write_atomically(self._record, json.dumps(record, indent=1).encode())
        return Learned(model, marks, table.schema, len(rows), int(held.sum()), was_kept=False)


def _is_registered(store: "FeatureStore") -> bool:
    return any(each.name == TRAINING_SET for each in store.registry.list_saved_datasets(store.project))


def feature_names(service: "FeatureService") -> list[str]:
    """Returns the features of a service in its order."""
    return [feature.name for projection in service.feature_view_projections for feature in projection.features]


def on_demand_features(store: "FeatureStore", service: "FeatureService") -> Sequence[str]:
    """Returns the features of a service that are computed at the lookup."""
    views = {view.name for view in store.list_on_demand_feature_views()}
    projections = [each for each in service.feature_view_projections if each.name in views]
    return [feature.name for projection in projections for feature in projection.features]
