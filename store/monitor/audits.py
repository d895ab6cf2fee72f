"""Reports of audits, kept in `data/monitor/audit/` of a feature repo: a file each, whole or not there."""

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from store.clock import to_us
from store.files import write_atomically
from store.limits import AUDIT_BYTES_MAX, AUDITS_KEPT

_FOLDER = ("data", "monitor", "audit")


@dataclass(frozen=True, slots=True)
class KeptAudit:
    """One audit: when it ran, whether all was well, and its report as `larder audit --json` prints it.

    The report has `ran_at` besides, ISO 8601, and `asked_services`, empty for all that are logged.

    Units: `ran_us` is microseconds since the epoch, on the repo's clock.
    """

    ran_us: int
    is_clean: bool
    report: Mapping[str, Any]


class AuditFiles:
    """The kept reports of a repo, the last `AUDITS_KEPT` of them.

    Names sort as files were written, by the system's clock: that of the repo may be set back between two audits. What
    was read is kept, so that a look at files that have not changed is a look at their names; threads may look at once.

    Attributes:
        problems: of the last look, a sentence for each file that is none of ours or is damaged; such a file is skipped.
    """

    def __init__(self, repo_path: Path) -> None:
        self._folder = Path(repo_path).joinpath(*_FOLDER)
        self._read: dict[tuple[str, int, int], KeptAudit | str] = {}
        self.problems: Sequence[str] = ()

    def append(self, report: Mapping[str, Any]) -> Path:
        """Keeps a report, and removes the oldest where there are too many; returns its file.

        Args:
            report: with `ran_at` and `is_clean`.

        Raises:
            OSError: no room or no permission; nothing was kept.
        """
        path = self._folder / f"{time.time_ns() // 1_000:020}-{secrets.token_hex(4)}.json"
        write_atomically(path, json.dumps(report).encode())
        for old in self._files()[AUDITS_KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def last(self) -> KeptAudit | None:
        """Returns the last audit whose file is whole, None if there is none."""
        return self.look()[0]

    def look(self) -> tuple[KeptAudit | None, Sequence[str]]:
        """Returns the last audit and the problems on the way to it."""
        problems: list[str] = []
        read: dict[tuple[str, int, int], KeptAudit | str] = {}
        found: KeptAudit | None = None
        for path in self._files():
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # an audit has just removed it
            stamp = path.name, status.st_mtime_ns, status.st_size
            kept = read[stamp] = self._read.get(stamp) or _read(path, status.st_size)
            if isinstance(kept, KeptAudit):
                found = kept
                break
            problems.append(kept)
        self._read, self.problems = read, problems
        return found, problems

    def _files(self) -> list[Path]:
        """Returns all files that are whole, the newest first; one that is being written begins with a dot."""
        return sorted((path for path in self._folder.glob("[!.]*.json")), key=lambda path: path.name, reverse=True)


def keep_audit(repo_path: Path, report_as_json: Mapping[str, Any]) -> Path:
    """Keeps the report of an audit, with `ran_at`; returns its file.

    Raises:
        OSError: no room or no permission; nothing was kept.
    """
    return AuditFiles(repo_path).append(report_as_json)


def last_audit(repo_path: Path) -> Mapping[str, Any] | None:
    """Returns the report of the last audit, None if there is none; `AuditFiles` tells of damaged files as well."""
    kept = AuditFiles(repo_path).last()
    return None if kept is None else kept.report


def _read(path: Path, size_bytes: int) -> KeptAudit | str:
    """Returns what a file holds, or a sentence that says why it holds nothing."""
    if size_bytes > AUDIT_BYTES_MAX:
        return f"{str(path)!r} has {size_bytes} bytes, expected at most {AUDIT_BYTES_MAX}; remove it"
    try:
        report = json.loads(path.read_bytes())
        ran_us, is_clean = to_us(datetime.fromisoformat(report["ran_at"])), report["is_clean"]
    except OSError as error:
        return f"{str(path)!r} cannot be read ({error.strerror}); allow it to be read, or remove it"
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"{str(path)!r} is no report of an audit; remove it, and audit again"
    if not isinstance(is_clean, bool):
        return f"{str(path)!r} does not say whether its audit failed; remove it, and audit again"
    return KeptAudit(ran_us, is_clean, report)
