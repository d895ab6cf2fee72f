"""What is benchmarked over: the shapes of history and of entity rows, as plain values."""

from dataclasses import dataclass

START_US = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
SPAN_US = 365 * 86_400_000_000
TTL_DAYS = 30

KEY = "user_id"
EVENT = "event_timestamp"
CREATED = "created"
ROW_ID = "row_id"

VIEWS = 3
FEATURES = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """A history of `VIEWS` feature views with `rows` rows each over `keys` keys, spread over one year."""

    name: str
    rows: int
    keys: int

    @property
    def label(self) -> str:
        """Returns the name under which its files lie and its figures are printed."""
        return f"{self.name}-{self.rows}"


def view_name(view: int) -> str:
    """Returns the name of the feature view with this number."""
    return f"view_{view}"


def feature_names(view: int) -> tuple[str, ...]:
    """Returns the features of a view; no two views share a name, so that the answer needs no prefixes."""
    return tuple(f"v{view}_f{feature}" for feature in range(FEATURES))


ALL_FEATURES = tuple(name for view in range(VIEWS) for name in feature_names(view))
