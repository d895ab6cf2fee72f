"""`monitoring.yaml` beside feature_store.yaml: what is compared with what, what makes an alarm, and whom it is told.

Every key is optional and the file too. Unknown keys are refused by name: a threshold that is misspelt would be none.
"""

import os
from collections.abc import Hashable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from store.clock import to_us
from store.errors import ConfigError
from store.kernel.drift_measures import LENGTH, Measure
from store.limits import (
    MONITORING_DAYS_MAX,
    MONITORING_FILE_BYTES_MAX,
    ROWS_ALIKE_MAX,
    WEBHOOK_ATTEMPTS_MAX,
    WEBHOOK_SECONDS_MAX,
)
from store.monitor.subjects import Span

FILE = "monitoring.yaml"

THRESHOLDS: Mapping[str, float | None] = {
    Measure.PSI: 0.1,
    Measure.JENSEN_SHANNON: 0.1,
    Measure.KOLMOGOROV_SMIRNOV: 0.1,
    Measure.WASSERSTEIN: 0.1,
    Measure.MEAN_SHIFT: 0.1,
    Measure.CATEGORY_SHIFT: 0.1,
    Measure.NEW_CATEGORY_RATE: 0.01,
    Measure.NULL_RATE: 0.01,
    Measure.NAN_RATE: 0.01,
    Measure.INFINITY_RATE: 0.01,
    Measure.UNKNOWN_KEY_RATE: 0.01,
    Measure.STALE_RATE: 0.01,
}
"""From which effect on a change matters, where nothing else is set: a tenth, or of rates a percentage point."""

_OF_NUMBERS = (
    Measure.PSI,
    Measure.JENSEN_SHANNON,
    Measure.KOLMOGOROV_SMIRNOV,
    Measure.WASSERSTEIN,
    Measure.MEAN_SHIFT,
)
THRESHOLD_NAMES = (*(str(each) for each in THRESHOLDS), *(f"{LENGTH}{each}" for each in _OF_NUMBERS))

Days = Annotated[int, msgspec.Meta(ge=1, le=MONITORING_DAYS_MAX)]
RowsAlike = Annotated[float, msgspec.Meta(ge=1, le=ROWS_ALIKE_MAX)]
Threshold = Annotated[float, msgspec.Meta(gt=0)]


class ReferenceSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}):
    """What a current profile is held against: a training set, the days before, or fixed ones; one of the three."""

    training_set: str | None = None
    days: Days | None = None
    start: str | None = None
    end: str | None = None

    def __post_init__(self) -> None:
        is_fixed = self.start is not None or self.end is not None
        if is_fixed and (self.start is None or self.end is None):
            raise ValueError("'from' and 'to' stand together; add the other one")
        if sum((self.training_set is not None, self.days is not None, is_fixed)) != 1:
            raise ValueError("give one of 'training_set', 'days', or 'from' with 'to'")
        if self.training_set == "":
            raise ValueError("'training_set' is empty; give the name of a saved training set")
        _ = self.span

    @property
    def span(self) -> Span | None:
        """The fixed stretch of time, if it is one."""
        if self.start is None or self.end is None:
            return None
        span = Span(_instant_us("from", self.start), _instant_us("to", self.end))
        if span.start_us >= span.end_us:
            raise ValueError(f"'from' {self.start!r} is not before 'to' {self.end!r}, which is exclusive")
        return span


class CurrentSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of the latest time is the current one: whole days, UTC."""

    days: Days = 1


class FeatureSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is different for one feature."""

    thresholds: dict[str, Threshold | None] = {}
    rows_alike: RowsAlike | None = None
    ignore: bool = False


class WebhookSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where alarms are posted; the address is a secret, so it may stand in an environment variable instead."""

    url: str | None = None
    url_variable: str | None = None
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=WEBHOOK_SECONDS_MAX)] = 10.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=WEBHOOK_ATTEMPTS_MAX)] = 3

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_variable is None):
            raise ValueError("give one of 'url' and 'url_variable'")

    def address(self, environment: Mapping[str, str] | None = None) -> str:
        """Returns where to post.

        Raises:
            ConfigError: the variable that is to hold it is not set.
        """
        if self.url_variable is None:
            return self.url or ""
        address = (os.environ if environment is None else environment).get(self.url_variable, "")
        if not address:
            raise ConfigError(
                f"{FILE}: webhook.url_variable names the environment variable {self.url_variable!r}, which is not "
                "set; set it to the address, or take the webhook out"
            )
        return address


class MonitoringSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of `monitoring.yaml`.

    Attributes:
        rows_min: independent values below which nothing is compared.
        rows_alike: how many rows together are worth an independent one: hours that follow each other are much alike.
        references: by the name of a view, service, push source or training set, where it is not `reference`.
        features: by `view:feature` (of a push source or of a training set by the name of the column).
    """

    reference: ReferenceSetting = ReferenceSetting(days=28)
    references: dict[str, ReferenceSetting] = {}
    current: CurrentSetting = CurrentSetting()
    false_alarm_rate: Annotated[float, msgspec.Meta(gt=0, le=0.5)] = 0.01
    rows_min: Annotated[int, msgspec.Meta(ge=10)] = 50
    rows_alike: RowsAlike = 1.0
    thresholds: dict[str, Threshold | None] = {}
    features: dict[str, FeatureSetting] = {}
    webhook: WebhookSetting | None = None

    def __post_init__(self) -> None:
        _check_measures("thresholds", self.thresholds)
        for name, feature in self.features.items():
            _check_measures(f"features[{name!r}].thresholds", feature.thresholds)

    def thresholds_of(self, feature: str) -> dict[str, float | None]:
        """Returns the thresholds of a feature by measure."""
        own = self.features.get(feature, FeatureSetting()).thresholds
        return {**THRESHOLDS, **self.thresholds, **own}

    def rows_alike_of(self, feature: str) -> float:
        """Returns how many rows of a feature are worth an independent one."""
        own = self.features.get(feature, FeatureSetting()).rows_alike
        return self.rows_alike if own is None else own

    def ignores(self, feature: str) -> bool:
        """Whether a feature is not to be compared."""
        return self.features.get(feature, FeatureSetting()).ignore


def _check_measures(place: str, thresholds: Mapping[str, Any]) -> None:
    for name in thresholds:
        if name not in THRESHOLD_NAMES:
            raise ValueError(f"{place}: {name!r} is no measure with a threshold; they are {', '.join(THRESHOLD_NAMES)}")


def _instant_us(key: str, text: str) -> int:
    try:
        return to_us(datetime.fromisoformat(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{key!r} {text!r} is no instant; write it like 2013-12-01 or 2013-12-01T12:00:00Z") from error


class _Loader(yaml.SafeLoader):
    """YAML in which dates stay the text that they are, and no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {repr(each) for each in keys if keys.count(each) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {', '.join(sorted(twice))} stands twice", node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def monitoring_settings(repo_path: Path) -> MonitoringSettings:
    """Returns the settings of a feature repo, the defaults where it has no `monitoring.yaml`.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has a key or value that is not expected there.
    """
    path = Path(repo_path) / FILE
    try:
        if path.stat().st_size > MONITORING_FILE_BYTES_MAX:
            raise ConfigError(
                f"{str(path)!r} is greater than {MONITORING_FILE_BYTES_MAX} bytes; that is no settings file"
            )
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return MonitoringSettings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as text ({error}); correct or remove it") from error
    try:
        loaded = yaml.load(content, _Loader)  # noqa: S506 - a safe loader, stricter still
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{str(path)!r} is no YAML: {_told(error)}") from None
    return MonitoringSettings() if loaded is None else _converted(path, loaded)


def _told(error: Exception) -> str:
    """Returns what is wrong and where, without the line itself: it may hold a secret."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    return "it is nested too deeply" if isinstance(error, RecursionError) else type(error).__name__


def _converted(path: Path, loaded: Any) -> MonitoringSettings:
    try:
        _check_keys(MonitoringSettings, loaded, "")
        return msgspec.convert(loaded, MonitoringSettings)
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: {error}") from error


_PARTS: Mapping[str, type[msgspec.Struct]] = {
    "reference": ReferenceSetting,
    "current": CurrentSetting,
    "webhook": WebhookSetting,
}
_NAMED_PARTS: Mapping[str, type[msgspec.Struct]] = {"references": ReferenceSetting, "features": FeatureSetting}


def _check_keys(form: type[msgspec.Struct], loaded: Any, place: str) -> None:
    """Refuses keys that a part of the file does not know, with those that it does; msgspec tells only the key."""
    if not isinstance(loaded, dict):
        known = ", ".join(form.__struct_encode_fields__)
        # What stands there instead may be a secret.
        raise ConfigError(f"{place or 'the file'} is no mapping; the keys there are {known}")
    for key, value in loaded.items():
        if key not in form.__struct_encode_fields__:
            known = ", ".join(form.__struct_encode_fields__)
            raise ValueError(f"unknown key {key!r}{f' in {place}' if place else ''}; the keys there are {known}")
        if place:
            continue
        if key in _PARTS and value is not None:
            _check_keys(_PARTS[key], value, key)
        if key in _NAMED_PARTS and isinstance(value, dict):
            for name, each in value.items():
                _check_keys(_NAMED_PARTS[key], each, f"{key}[{name!r}]")
