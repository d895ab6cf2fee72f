"""A registry behind Feast's registry server, copied into memory: its client would ask the network at every request."""

import hashlib
from datetime import timedelta
from typing import Any

from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.registry.registry import Registry
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RepoConfig


def copied(registry: BaseRegistry, project: str) -> RegistryProto:
    """Returns what a registry holds of one project; its version is a digest of that.

    It is put together from the lists of each kind. The registry server's own answer to a request for all does not tell
    which project an object is of.
    """
    whole = RegistryProto()
    whole.projects.extend(found.to_proto() for found in registry.list_projects() if found.name == project)
    if not whole.projects:
        return whole
    lists: tuple[tuple[Any, list[Any]], ...] = (
        (whole.entities, registry.list_entities(project)),
        (whole.data_sources, registry.list_data_sources(project)),
        (whole.feature_views, registry.list_feature_views(project)),
        (whole.stream_feature_views, registry.list_stream_feature_views(project)),
        (whole.on_demand_feature_views, registry.list_on_demand_feature_views(project)),
        (whole.feature_services, registry.list_feature_services(project)),
        (whole.saved_datasets, registry.list_saved_datasets(project)),
    )
    for kept, objects in lists:
        for message in sorted((found.to_proto() for found in objects), key=_name_of):
            _project_holder(message).project = project
            kept.append(message)
    whole.version_id = hashlib.sha256(whole.SerializeToString(deterministic=True)).hexdigest()[:16]
    return whole


def _project_holder(message: Any) -> Any:
    """Returns the part of an object's message that names it and its project."""
    return message.spec if "spec" in message.DESCRIPTOR.fields_by_name else message


def _name_of(message: Any) -> str:
    return str(_project_holder(message).name)


def registry_of(whole: RegistryProto, config: RepoConfig) -> Registry:
    """Returns a registry in memory that holds this and nothing newer."""
    registry = Registry(config.project, None, None)
    registry.enable_online_versioning = config.registry.enable_online_feature_view_versioning
    registry.cached_registry_proto = whole
    registry.cached_registry_proto_ttl = timedelta(0)
    return registry
