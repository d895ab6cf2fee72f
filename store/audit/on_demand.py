"""The audit of on-demand features: the function of today over the inputs that were served, and what training sees."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from store.audit.columns import Answer, Truths, equal_values
from store.audit.plain_views import Verdicts
from store.audit.report import Judged
from store.feast_values import plain_from_python, python_from_plain
from store.kernel.equality import are_equal
from store.kernel.judging import DIFFERENT, SAME, Cause, Reproduction
from store.kernel.served_log import STATUS_NAMES, LoggedFeature, LoggedOnDemand, LoggedPlan
from store.online.lookup import run_on_demand

_OLDER = Reproduction(False, Cause.OLDER_DEFINITION)


class OnDemand:
    """The audit of one on-demand view in the files of one plan.

    Attributes:
        name: of the view, as the request calls it.
        prefix: of its features' names in what training sees.
        features: those that were logged.
    """

    def __init__(self, logged: LoggedOnDemand, features: list[LoggedFeature], plan: LoggedPlan, today: Any) -> None:
        """Takes what is known.

        Args:
            today: Feast's object; None where the view is gone or has another function.
        """
        self.name = logged.name
        self.prefix = f"{logged.name}__"
        self.features = features
        self._logged = logged
        self._plan = plan
        self._today = today
        self._type_of = {feature.column: feature.type_name for feature in plan.features}

    def reproduced(self, answer: Answer) -> dict[str, Truths]:
        """Returns for each feature which of the rows the function gives as they were served, by feature column.

        Raises:
            InputError: the function fails.
        """
        if self._today is None:
            return {feature.column: np.zeros(len(answer), bool) for feature in self.features}
        inputs = {name: self._python(answer, name, kind) for name, kind in self._given()}
        inputs |= {name: self._python(answer, column, self._type_of[column]) for name, column in self._logged.inputs}
        results = run_on_demand(self._today, inputs, len(answer))
        found = {}
        for feature in self.features:
            computed = plain_from_python(results.get(feature.name, [None] * len(answer)), feature.type_name)
            codes = answer.logged(f"{feature.column}__status").to_pylist()
            served = zip(answer.logged(feature.column).to_pylist(), codes, computed, strict=True)
            found[feature.column] = np.fromiter(
                (
                    are_equal(value, again) and STATUS_NAMES.get(code) == ("NULL_VALUE" if value is None else "PRESENT")
                    for value, code, again in served
                ),
                bool,
                len(answer),
            )
        return found

    def agreeing(self, answer: Answer) -> dict[str, Truths]:
        """Returns for each feature which of the rows training sees as they were served, by feature column."""
        return {
            feature.column: equal_values(
                feature.declared, answer.logged(feature.column), answer.trained(f"{self.prefix}{feature.name}")
            )
            for feature in self.features
        }

    def judged(self, answer: Answer, inputs: Verdicts) -> Verdicts:
        """Returns what is found of each feature of some rows.

        Args:
            inputs: what was found of the features that it is computed from.
        """
        reproduced, agreeing = self.reproduced(answer), self.agreeing(answer)
        verdicts: Verdicts = {}
        for feature in self.features:
            verdicts[feature.column] = [
                self._verdict(
                    bool(is_same), bool(is_agreeing), [inputs[c][n] for _, c in self._logged.inputs if c in inputs]
                )
                for n, (is_same, is_agreeing) in enumerate(
                    zip(reproduced[feature.column], agreeing[feature.column], strict=True)
                )
            ]
        return verdicts

    def _verdict(self, is_same: bool, is_agreeing: bool, inputs: Sequence[Judged]) -> Judged:
        if self._today is None:
            return Judged(_OLDER, not is_agreeing, None if is_agreeing else Cause.OLDER_DEFINITION)
        reproduction = SAME if is_same else DIFFERENT
        if is_agreeing:
            return Judged(reproduction, False, None)
        cause = next((each.cause for each in inputs if each.is_skewed), None)
        return Judged(reproduction, True, cause)

    def _given(self) -> Sequence[tuple[str, str]]:
        return (*self._plan.entity_columns, *self._plan.request_columns)

    def _python(self, answer: Answer, column: str, type_name: str) -> list[Any]:
        return [python_from_plain(value, type_name) for value in answer.logged(column).to_pylist()]
