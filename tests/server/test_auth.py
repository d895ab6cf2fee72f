import json
import subprocess
import sys
from pathlib import Path

import pytest

from server.auth import Scope, digest_of, load_tokens, new_token
from server.limits import TOKEN_BYTES_MAX, TOKENS_MAX
from store.errors import ConfigError

DIGEST = digest_of("secret")


def write(folder: Path, content: object) -> Path:
    path = folder / "tokens.yaml"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def entry(**changes: object) -> dict[str, object]:
    return {"name": "a", "sha256": DIGEST, "scopes": ["read"], **changes}


def test_a_token_is_found_by_its_digest(tmp_path: Path) -> None:
    second = entry(name="b", sha256=digest_of("other").upper(), scopes=["write", "admin"])
    table = load_tokens(write(tmp_path, [entry(), second]))
    found = table.find(b"other")
    assert found is not None
    assert found.name == "b"
    assert found.scopes == {Scope.WRITE, Scope.ADMIN}
    assert table.find(b"secreT") is None
    assert table.find(b"") is None


def test_the_file_may_be_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, f"- name: a\n  sha256: '{DIGEST}'\n  scopes: [read, write]\n")
    assert load_tokens(path).find(b"secret") is not None


def test_a_token_beyond_the_bound_is_not_even_hashed(tmp_path: Path) -> None:
    at_bound, beyond = "x" * TOKEN_BYTES_MAX, "x" * (TOKEN_BYTES_MAX + 1)
    entries = [entry(name="at", sha256=digest_of(at_bound)), entry(name="beyond", sha256=digest_of(beyond))]
    table = load_tokens(write(tmp_path, entries))
    assert table.find(at_bound.encode()) is not None
    assert table.find(beyond.encode()) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[", "not valid YAML"),
        ("", "at least one entry"),
        ([], "at least one entry"),
        ({"name": "a"}, "expected a list"),
        ([entry(token="plain-secret")], "exactly the fields"),
        (["plain-secret"], "exactly the fields"),
        ([{"name": "a", "scopes": ["read"]}], "exactly the fields"),
        ([entry(sha256="plain-secret")], "64 hex digits"),
        ([entry(sha256=1234)], "64 hex digits"),
        ([entry(scopes=[])], "scopes must be"),
        ([entry(scopes="read")], "scopes must be"),
        ([entry(scopes=["reed"])], "scopes must be"),
        ([entry(name="")], "name must be"),
        ([entry(), entry()], "given twice"),
        ([entry(name=str(n)) for n in range(TOKENS_MAX + 1)], "at most"),
    ],
)
def test_a_file_that_is_not_of_the_documented_form_is_refused(tmp_path: Path, content: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as refused:
        load_tokens(write(tmp_path, content))
    assert "plain-secret" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokens(tmp_path / "none.yaml")


def test_new_tokens_differ_and_their_digest_is_their_sha256() -> None:
    assert new_token() != new_token()
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_token_command_prints_a_secret_and_an_entry_that_loads(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "token", "--name", "svc", "--scope", "read", "--scope", "admin"]
    secret, line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = load_tokens(write(tmp_path, line)).find(secret.encode())
    assert found is not None
    assert found.scopes == {Scope.READ, Scope.ADMIN}
    assert secret not in line
