"""Two changes of one registry made into one: what `feast apply` and `feast materialize` do beside each other.

Feast reads the registry, changes its copy and writes the whole; whoever writes last would undo the other.
"""

from collections.abc import Iterable
from typing import Any

from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from google.protobuf.descriptor import FieldDescriptor

from store.errors import RegistryConflict

_WHOLE = frozenset({"version_id", "last_updated"})
"""Fields that every write sets anew, so that they are nobody's change."""


def merged(base: RegistryProto, theirs: RegistryProto, ours: RegistryProto) -> RegistryProto:
    """Returns a registry with the changes from `base` to `theirs` and those from `base` to `ours`.

    Objects are told apart by kind, project and name; what both changed in the same way is changed once. What Feast
    notes about an object (its `meta`: state, times, intervals) never conflicts: the later note stands, and the
    intervals of both do.

    Raises:
        RegistryConflict: both changed the same definition, each in its own way.
    """
    result = RegistryProto()
    result.CopyFrom(theirs)
    for field in RegistryProto.DESCRIPTOR.fields:
        if field.name in _WHOLE:
            continue
        if field.name == "feature_view_version_history":
            known = list(theirs.feature_view_version_history.records)
            ours_only = [record for record in ours.feature_view_version_history.records if record not in known]
            result.feature_view_version_history.records.extend(ours_only)
        elif field.is_repeated:
            objects = _merged_objects(field.name, *(getattr(side, field.name) for side in (base, theirs, ours)))
            collection = getattr(result, field.name)
            del collection[:]
            collection.extend(objects)
        elif getattr(ours, field.name) != getattr(base, field.name):
            _replace(result, field, ours)
    return result


def _merged_objects(kind: str, base: Iterable[Any], theirs: Iterable[Any], ours: Iterable[Any]) -> list[Any]:
    then, theirs_now, ours_now = _by_name(base), _by_name(theirs), _by_name(ours)
    result = []
    for name in dict.fromkeys([*theirs_now, *ours_now]):
        before, their, our = then.get(name), theirs_now.get(name), ours_now.get(name)
        if our in (before, their):
            kept = their
        elif their == before:
            kept = our
        elif before is not None and our is not None and their is not None and _same_definition(before, their, our):
            kept = _with_notes_of_both(before, their, our)
        else:
            raise RegistryConflict(
                f"{kind.rstrip('s')} {name[1]!r} of project {name[0]!r} was changed in the registry by another process "
                "meanwhile; run the command again"
            )
        if kept is not None:
            result.append(kept)
    return result


def _same_definition(before: Any, their: Any, our: Any) -> bool:
    """Whether at least one side left the definition of an object as it was, or both changed it in the same way."""
    has_notes = {"spec", "meta"} <= set(before.DESCRIPTOR.fields_by_name)
    return has_notes and (before.spec in (their.spec, our.spec) or their.spec == our.spec)


def _with_notes_of_both(before: Any, their: Any, our: Any) -> Any:
    """Returns the changed definition with our notes, where ours changed, and the intervals of both."""
    result = type(our)()
    result.CopyFrom(their)
    if our.spec != before.spec:
        result.spec.CopyFrom(our.spec)
    for field in our.meta.DESCRIPTOR.fields:
        if field.name == "materialization_intervals":
            known = list(their.meta.materialization_intervals)
            ours_only = [interval for interval in our.meta.materialization_intervals if interval not in known]
            result.meta.materialization_intervals.extend(ours_only)
        elif getattr(our.meta, field.name) != getattr(before.meta, field.name):
            _replace(result.meta, field, our.meta)
    return result


def _by_name(objects: Iterable[Any]) -> dict[tuple[str, str], Any]:
    return {_name_of(message): message for message in objects}


def _name_of(message: Any) -> tuple[str, str]:
    """Returns the project and name of a registry object; most kinds have them in their `spec`."""
    described = message.spec if "spec" in message.DESCRIPTOR.fields_by_name else message
    return getattr(described, "project", ""), getattr(described, "name", "") or getattr(described, "project", "")


def _replace(result: Any, field: FieldDescriptor, source: Any) -> None:
    """Copies one field that is not repeated."""
    if field.message_type is not None:
        getattr(result, field.name).CopyFrom(getattr(source, field.name))
    else:
        setattr(result, field.name, getattr(source, field.name))
