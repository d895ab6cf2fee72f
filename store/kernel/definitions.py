"""What Larder needs to know of a feature view, free of Feast: names, types, times and where the rows are."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from store.kernel.windows import WindowFeature


@dataclass(frozen=True, slots=True)
class Column:
    """A join key or feature: its name and the name of its Feast `ValueType` (such as `INT64`)."""

    name: str
    type_name: str


@dataclass(frozen=True, slots=True)
class SourceDefinition:
    """The batch source of a view, as declared.

    `field_mapping` holds pairs (column in the file, name in the view). `timestamp_field` and
    `created_timestamp_column` are names in the file; `created_timestamp_column` is "" where there is none.
    `path` is as declared: relative paths are resolved against the repo folder by the shells.
    """

    path: str
    timestamp_field: str
    created_timestamp_column: str
    field_mapping: tuple[tuple[str, str], ...]

    def file_column(self, name: str) -> str:
        """Returns the name in the file of a column that is called `name` in the view."""
        return next((in_file for in_file, in_view in self.field_mapping if in_view == name), name)


@dataclass(frozen=True, slots=True)
class ViewDefinition:
    """One feature view as declared: join keys in entity order, features by name, time to live.

    `ttl_us` is microseconds, 0 for no limit. `source` is None for a view that is only pushed to. `windows` are the
    windowed features, by name; a view with any has no others, and its ttl plays no part. `transformation` stands for
    the function that its source's rows go through, "" for none. `is_external`: the user's own jobs fill the source too.
    """

    project: str
    name: str
    join_keys: tuple[Column, ...]
    features: tuple[Column, ...]
    ttl_us: int
    source: SourceDefinition | None
    windows: tuple[WindowFeature, ...] = ()
    transformation: str = ""
    is_external: bool = False
    _fingerprint: str = field(default="", init=False, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """Returns 16 hex digits that change when stored rows would have to be computed anew.

        The ttl is left out: it decides how a row is read, not what is in it.
        """
        if not self._fingerprint:
            # Asked for at each lookup of a windowed view.
            object.__setattr__(self, "_fingerprint", self._computed_fingerprint())
        return self._fingerprint

    def _computed_fingerprint(self) -> str:
        content: dict[str, object] = {
            "join_keys": sorted(asdict(column).items() for column in self.join_keys),
            "features": sorted(asdict(column).items() for column in self.features),
            "source": asdict(self.source) if self.source else None,
        }
        if self.windows:
            content |= {"windows": [asdict(feature) for feature in self.windows], "is_external": self.is_external}
        if self.transformation:
            content["transformation"] = self.transformation
        canonical = json.dumps(content, sort_keys=True, default=list)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
