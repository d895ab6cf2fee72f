"""Which feature of a reference is the one of a current profile, where both name it in their own way.

A feature view's profile has plain names, that of a service's log `view:feature`, a training set `view__feature` or
plain names as it was asked for. A name that could be two features is matched with neither.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from store.monitor.subjects import Subject, SubjectKind

_SERVED = ":"
_TRAINED = "__"


@dataclass(frozen=True, slots=True)
class Names:
    """Features of a current profile with those of its reference.

    Attributes:
        matched: the name in the reference by the one in the current profile.
        refused: why one has no match, in a sentence, by its name in the current profile.
        gone: features of the reference that the current profile lacks.
    """

    matched: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)


def qualified(subject: Subject, name: str) -> str:
    """Returns `view:feature` where a profile tells the view, else the name as it is."""
    if subject.kind is SubjectKind.FEATURE_VIEW:
        return f"{subject.name}{_SERVED}{name}"
    return name


def match(
    current: Subject, current_names: Collection[str], reference: Subject, reference_names: Collection[str]
) -> Names:
    """Returns which feature of the reference each feature of a current profile is."""
    if current == reference or current.kind is reference.kind is SubjectKind.FEATURE_VIEW:
        candidates = {name: [name] if name in reference_names else [] for name in current_names}
    else:
        theirs = {qualified(reference, each): each for each in reference_names}
        candidates = {
            name: [theirs[each] for each in _candidates(qualified(current, name), theirs)] for name in current_names
        }
    takers: dict[str, list[str]] = {}
    for name, found in candidates.items():
        for each in found:
            takers.setdefault(each, []).append(name)
    names = Names()
    for name, found in candidates.items():
        if len(found) > 1:
            names.refused[name] = (
                f"it could be {_either(found)} of the reference {reference}; name columns by view there"
            )
        elif not found:
            names.refused[name] = f"the reference {reference} has no such feature"
        elif len(takers[found[0]]) > 1:
            names.refused[name] = (
                f"{found[0]!r} of the reference {reference} could be {_either(takers[found[0]])}; name columns by "
                "view there (full_feature_names=True)"
            )
        else:
            names.matched[name] = found[0]
    names.gone.extend(each for each in reference_names if each not in takers)
    return names


def _either(names: Iterable[str]) -> str:
    return " or ".join(repr(each) for each in sorted(names))


def _candidates(name: str, theirs: Collection[str]) -> list[str]:
    """Returns the names of a reference that a name can mean: those that tell its view first, then plain ones."""
    view, separator, feature = name.rpartition(_SERVED)
    if separator:
        spelled = (name, f"{view}{_TRAINED}{feature}", feature)
        return next(([each] for each in spelled if each in theirs), [])
    if name in theirs:
        return [name]
    # A training set's name with the view in it, or a plain one for which any view will do.
    return [
        each
        for each in theirs
        if each.replace(_SERVED, _TRAINED) == name
        or each.rpartition(_SERVED)[2] == name
        or each.endswith(f"{_TRAINED}{name}")
    ]
