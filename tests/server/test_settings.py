from pathlib import Path

import pytest

from server.settings import is_loopback, settings_for
from store.errors import ConfigError


@pytest.fixture
def declared(repo: Path) -> Path:
    (repo / "feature_store.yaml").write_text("project: p\n")
    return repo


def test_a_folder_without_a_feature_store_is_refused(repo: Path) -> None:
    with pytest.raises(ConfigError, match=r"no feature_store\.yaml"):
        settings_for(repo, environ={})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_tokens(declared: Path, host: str) -> None:
    assert is_loopback(host)
    assert settings_for(declared, host, environ={}).tokens is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "larder.example.org"])
def test_a_wider_bind_without_tokens_is_refused_unless_said_otherwise(declared: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="--allow-anonymous"):
        settings_for(declared, host, environ={})
    assert settings_for(declared, host, allow_anonymous=True, environ={}).tokens is None


def test_hosts_are_loopback_the_bound_one_and_those_listed(declared: Path) -> None:
    listed = {"LARDER_ALLOWED_HOSTS": " Features.example.org, [2001:db8::1] ,"}
    hosts = settings_for(declared, "10.0.0.1", allow_anonymous=True, environ=listed).allowed_hosts
    assert hosts == {"localhost", "127.0.0.1", "[::1]", "10.0.0.1", "features.example.org", "[2001:db8::1]"}
    hosts = settings_for(declared, "::", allow_anonymous=True, environ={}).allowed_hosts
    assert hosts == {"localhost", "127.0.0.1", "[::1]"}


@pytest.mark.parametrize("listed", ["*", "*.example.org", "http://example.org", "example.org:80"])
def test_what_is_no_host_name_is_refused(declared: Path, listed: str) -> None:
    with pytest.raises(ConfigError, match="not a host name"):
        settings_for(declared, environ={"LARDER_ALLOWED_HOSTS": listed})
