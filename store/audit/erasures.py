"""When entities were erased, and by which join keys: what an audit has to know of them, and no value of any key."""

import json
from pathlib import Path

from store.errors import ConfigError
from store.files import locked, write_atomically
from store.limits import ERASURES_KEPT_MAX

ERASURES_FILE = "erasures.json"


class Erasures:
    """The erasures of a feature repo, kept beside its data; the last ones, where there were very many."""

    def __init__(self, repo_path: Path) -> None:
        self._path = repo_path / "data" / ERASURES_FILE

    def note(self, at_us: int, join_keys: frozenset[str]) -> None:
        """Notes that keys which contain some columns with some values were erased.

        Raises:
            OSError: the file cannot be written.
        """
        with locked(self._path):
            kept = [*self._read(), (at_us, join_keys)][-ERASURES_KEPT_MAX:]
            content = [{"at_us": at, "join_keys": sorted(names)} for at, names in kept]
            write_atomically(self._path, json.dumps(content).encode())

    def last_us(self, join_keys: frozenset[str]) -> int | None:
        """Returns when an erasure last reached views with some join keys, None if none did.

        Raises:
            ConfigError: the file cannot be understood.
        """
        return max((at for at, names in self._read() if names <= join_keys), default=None)

    def _read(self) -> list[tuple[int, frozenset[str]]]:
        try:
            kept = json.loads(self._path.read_text())
            return [(int(each["at_us"]), frozenset(each["join_keys"])) for each in kept]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"file {str(self._path)!r}, which says when entities were erased, cannot be understood; restore it, or "
                "delete it: audits then take erased rows for lost ones"
            ) from error
