"""Files that pages load from this server: style sheet, script and icon, each named with a digest of its content."""

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: what kind it is, its content, and the digest that addresses this content."""

    content_type: str
    content: bytes
    digest: str


@cache
def assets() -> dict[str, Asset]:
    """Returns all files by name, read once."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            digest = blake2b(content, digest_size=8).hexdigest()
            found[path.name] = Asset(_TYPES[path.suffix], content, digest)
    return found


def address(name: str) -> str:
    """Returns the address of a file, which changes with its content, so that browsers may keep it for ever."""
    return f"/static/{name}?v={assets()[name].digest}"
