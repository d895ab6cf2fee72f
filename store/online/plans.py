"""Compiled plans, kept as long as the registry that they were compiled from is the current one."""

from collections import OrderedDict
from threading import Lock
from typing import Any

from feast.infra.registry.base_registry import BaseRegistry

from store.limits import PLANS_MAX
from store.online.plan import Asked, OnlinePlan, ServiceName, compile_plan


class PlanCache:
    """The least recently used plans go first; all go when the registry has changed.

    Whoever holds a registry that does not change says which state it is; else the registry is asked at each use.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._version: Any = None
        self._plans: OrderedDict[tuple[Any, ...], OnlinePlan] = OrderedDict()

    def plan(
        self,
        registry: BaseRegistry,
        project: str,
        features: Asked,
        *,
        full_feature_names: bool,
        state: object = None,
    ) -> OnlinePlan:
        """Returns the plan of a feature service or list, compiling it if it is not there.

        Args:
            state: an object that stands for one state of the registry for ever; None where the registry may change.

        Raises:
            UnknownObject, InputError: as `compile_plan`.
        """
        what = ("service", features.name) if isinstance(features, ServiceName) else ("list", *features)
        key = (project, full_feature_names, *what)
        with self._lock:
            is_current = self._version is state if state is not None else self._is_current(registry)
            if is_current and key in self._plans:
                self._plans.move_to_end(key)
                return self._plans[key]
        version = state if state is not None else _version_of(registry)
        plan = compile_plan(registry, project, features, full_feature_names=full_feature_names)
        with self._lock:
            # A registry that was renewed meanwhile may have given the plan one half old and one half new.
            if version is not None and (version is state or version == _version_of(registry)):
                if version != self._version:
                    self._plans.clear()
                    self._version = version
                self._plans[key] = plan
                while len(self._plans) > PLANS_MAX:
                    self._plans.popitem(last=False)
        return plan

    def _is_current(self, registry: BaseRegistry) -> bool:
        is_valid = getattr(registry, "is_cache_valid", None)
        return callable(is_valid) and is_valid() and self._version == _version_of(registry)


def _version_of(registry: BaseRegistry) -> Any:
    """Returns what tells one state of a registry from another, None where a registry cannot tell."""
    loaded = getattr(registry, "cached_registry_proto_created", None)
    return None if loaded is None else (id(registry), loaded)
