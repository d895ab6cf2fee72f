"""What has profiles, and runs that compute and keep them, a subject at a time: one that fails spoils no other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feast import FeatureStore
from feast.data_source import PushSource
from feast.on_demand_feature_view import OnDemandFeatureView

from store.clock import clock_for
from store.errors import LarderError, UnknownObject
from store.monitor.due import Asked, due_spans
from store.monitor.profile_files import ProfileFiles
from store.monitor.push_profiles import push_rows
from store.monitor.service_profiles import service_rows
from store.monitor.source_profiles import Profiled
from store.monitor.subjects import Span, Subject, SubjectKind, SubjectProfile
from store.monitor.training_set_profiles import training_set_rows
from store.monitor.view_profiles import view_rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did for one subject.

    Attributes:
        profiles: those that it computed and kept, in order of time.
        problem: why it could not, '' if it could.
        notes: what else is to be said of the run, in sentences.
    """

    subject: Subject
    profiles: tuple[SubjectProfile, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Profiler:
    """Profiles the subjects of a feature repo."""

    store: FeatureStore
    repo: Path
    files: ProfileFiles = field(init=False)

    def __post_init__(self) -> None:
        self.files = ProfileFiles(self.repo)

    def subjects(self) -> list[Subject]:
        """Returns all that a run profiles that is not told what to: views, logged services and push sources.

        On-demand views have no rows of their own, and training sets are profiled when they are named.
        """
        views = [view.name for view in self._views().values() if not isinstance(view, OnDemandFeatureView)]
        services = [name for name, service in self._services().items() if service.logging_config is not None]
        found = [Subject(SubjectKind.FEATURE_VIEW, name) for name in views]
        found += [Subject(SubjectKind.FEATURE_SERVICE, name) for name in services]
        found += [Subject(SubjectKind.PUSH_SOURCE, name) for name in self._push_sources()]
        return sorted(found)

    def require_known(self, subjects: Sequence[Subject]) -> None:
        """Checks that views, services and push sources are registered.

        Raises:
            UnknownObject: one is not.
        """
        registered: Mapping[SubjectKind, Callable[[], Mapping[str, Any]]] = {
            SubjectKind.FEATURE_VIEW: self._views,
            SubjectKind.FEATURE_SERVICE: self._services,
            SubjectKind.PUSH_SOURCE: self._push_sources,
        }
        for subject in subjects:
            if subject.kind not in registered:
                continue
            known = registered[subject.kind]()
            if subject.name not in known:
                raise UnknownObject(
                    f"{subject.kind.replace('_', ' ')} {subject.name!r} is not registered in project "
                    f"{self.store.project!r}, which has {sorted(known)}; correct the name or run 'feast apply'"
                )

    def run(self, subject: Subject, asked: Asked) -> Outcome:
        """Computes and keeps the profiles of a subject that were asked for or are due.

        Raises:
            UnknownObject: it is not registered.
            InputError: the time that was asked for makes no sense.
        """
        self.require_known([subject])
        now_us = clock_for(self.repo).now_us()
        try:
            rows = self._rows(subject)
            spans, notes = self._due(subject, rows, asked, now_us)
            found = rows.profiles(spans) if spans else []
            kept = []
            for span, profile in zip(spans, found, strict=True):
                kept.append(
                    SubjectProfile(
                        rows=profile.rows,
                        columns=profile.columns,
                        notes=profile.notes,
                        subject=subject,
                        span=span,
                        computed_us=now_us,
                    )
                )
                self.files.append(kept[-1])
        except UnknownObject:
            raise
        except LarderError as error:
            return Outcome(subject, problem=str(error))
        return Outcome(subject, tuple(kept), notes=notes)

    def _due(self, subject: Subject, rows: Profiled, asked: Asked, now_us: int) -> tuple[list[Span], tuple[str, ...]]:
        known = self.files.spans(subject)
        if subject.kind is SubjectKind.TRAINING_SET:
            spans = rows.changed({} if asked.is_explicit else known)
            return spans, () if spans else ("it has not changed since it was profiled",)
        due = due_spans(asked, rows.extent(), known, now_us)
        spans = list(due.spans)
        if not asked.is_explicit:
            spans += _apart(rows.changed(known), due.spans)
        notes = (due.note,) if due.note else ()
        if not spans:
            notes = (*notes, "nothing is due: all stretches that are over have a profile, and no file changed since")
        return sorted(spans), notes

    def _rows(self, subject: Subject) -> Profiled:
        clock = clock_for(self.repo)
        if subject.kind is SubjectKind.FEATURE_VIEW:
            return view_rows(self.store, clock, self._views()[subject.name])
        if subject.kind is SubjectKind.FEATURE_SERVICE:
            return service_rows(self.store, clock, self._services()[subject.name])
        if subject.kind is SubjectKind.PUSH_SOURCE:
            return push_rows(self.store, clock, self._push_sources()[subject.name])
        return training_set_rows(self.store, clock, subject.name)

    def _views(self) -> dict[str, Any]:
        return {view.name: view for view in self.store.list_all_feature_views(allow_cache=True)}

    def _services(self) -> dict[str, Any]:
        return {service.name: service for service in self.store.list_feature_services()}

    def _push_sources(self) -> dict[str, Any]:
        sources = self.store.list_data_sources(allow_cache=True)
        return {source.name: source for source in sources if isinstance(source, PushSource)}


def _apart(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """Returns the latest-ending of some spans that overlap neither each other nor any of others."""
    chosen: list[Span] = []
    for span in sorted(spans, key=lambda each: each.end_us - each.start_us):
        if not any(span.meets(other) for other in (*chosen, *others)):
            chosen.append(span)
    return chosen
