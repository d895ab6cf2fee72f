"""What monitoring has kept of a repo, as pages show it: profiles, drift."""

from pathlib import Path
from typing import Any


class Monitored:
    """Reads what monitoring keeps beside the data of a repo."""

    def __init__(self, repo_path: Path) -> None:
        self._repo_path = repo_path

    def profiled(self, kind: str, name: str) -> dict[str, Any] | None:
        """Returns the newest profile of a subject, a line for each column; None if there is none."""
        return None

    def distributions(self, asked: Any, feature: Any) -> list[dict[str, Any]]:
        """Returns the distributions of a feature: in its source, as served, in training sets."""
        return []

    def drifts(self, asked: Any, feature: Any) -> list[dict[str, Any]]:
        """Returns how a feature drifted over time."""
        return []

    def reports(self) -> list[dict[str, Any]]:
        """Returns the last drift report of each subject."""
        return []

    @property
    def problems(self) -> list[str]:
        """What was found that cannot be read, a sentence each."""
        return []
