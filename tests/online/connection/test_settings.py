"""Connection strings and settings: what they mean, and what is refused."""

from pathlib import Path

import pytest
import redis

from store.errors import ConfigError
from store.online.connection import RedisTarget, connect, parse_target, settings_of
from store.online.embedded import is_running
from store.online.targets import PARAMETERS
from tests.online.connection.targets import SECRET, config


@pytest.mark.parametrize(
    ("text", "hosts", "fields"),
    [
        ("localhost:6379", (("localhost", 6379),), {}),
        ("localhost", (("localhost", 6379),), {}),
        (" redis:6380 , db=3 ", (("redis", 6380),), {"db": 3}),
        ("[::1]:6379", (("::1", 6379),), {}),
        ("[fe80::1]", (("fe80::1", 6379),), {}),
        ("redis:6379,password=12345", (("redis", 6379),), {"password": "12345"}),
        ('redis:6379,password="12345"', (("redis", 6379),), {"password": "12345"}),
        ("redis:6379,password=a=b==,username=u", (("redis", 6379),), {"password": "a=b==", "username": "u"}),
        ("redis:6379,ssl=true,db=0", (("redis", 6379),), {"is_tls": True}),
        ("redis:6379,ssl=False", (("redis", 6379),), {"is_tls": False}),
        ("redis://h", (("h", 6379),), {}),
        ("redis://h:7000/2", (("h", 7000),), {"db": 2}),
        ("redis://h:7000/?db=2", (("h", 7000),), {"db": 2}),
        ("redis://u:p%2C%40%2F%23@h", (("h", 6379),), {"username": "u", "password": "p,@/#"}),
        ("redis://:p@[::1]:7000", (("::1", 7000),), {"password": "p"}),
        ("rediss://h:7000", (("h", 7000),), {"is_tls": True}),
        ("unix:///run/redis.sock", (), {"socket_path": "/run/redis.sock"}),
        ("unix://u:p@/run/r%20s.sock?db=4", (), {"socket_path": "/run/r s.sock", "db": 4, "password": "p"}),
        ("unix:///r.sock?password=p", (), {"socket_path": "/r.sock", "password": "p"}),
    ],
)
def test_connection_string_is_parsed(text: str, hosts: object, fields: dict[str, object]) -> None:
    target = parse_target(text)
    assert target.hosts == hosts
    assert {name: getattr(target, name) for name in fields} == fields


def test_cluster_and_sentinel_take_several_hosts() -> None:
    cluster = parse_target("a:1,b:2,skip_full_coverage_check=true", "redis_cluster")
    assert cluster.is_cluster
    assert cluster.hosts == (("a", 1), ("b", 2))
    assert not cluster.is_full_coverage_required
    sentinel = parse_target("a,b:2,sentinel_password=x", "redis_sentinel", "main")
    assert sentinel.is_sentinel
    assert sentinel.hosts == (("a", 26379), ("b", 2))
    assert (sentinel.sentinel_master, sentinel.sentinel_password) == ("main", "x")


def test_timeouts_and_certificates_reach_the_client_by_their_names() -> None:
    target = parse_target("h:1,ssl=true,ssl_cert_reqs=none,ssl_ca_certs=ca.pem,socket_timeout=0.5,max_connections=7")
    assert dict(target.options) == {
        "ssl_cert_reqs": "none",
        "ssl_ca_certs": "ca.pem",
        "socket_timeout": 0.5,
        "max_connections": 7,
    }
    pool = connect(target).connection_pool
    assert pool.connection_class is redis.SSLConnection
    assert pool.max_connections == 7
    assert pool.connection_kwargs["socket_timeout"] == 0.5


@pytest.mark.parametrize(
    ("text", "redis_type", "said"),
    [
        ("", "redis", "got ''"),
        ("db=0", "redis", "no host"),
        ("h:0", "redis", "got 'h:0'"),
        ("h:65536", "redis", "65535"),
        ("h:x", "redis", "'h:x'"),
        ("::1:6379", "redis", "[::1]:6379"),
        ("u:p@h:1", "redis", "username=..."),
        ("h:1,protocol=3", "redis", "'protocol'"),
        ("h:1,db=0,db=1", "redis", "twice"),
        ("h:1,db=-1", "redis", "whole number"),
        ("h:1,db=1.0", "redis", "whole number"),
        ("h:1,ssl=maybe", "redis", "true or false"),
        ("h:1,socket_timeout=0", "redis", "above 0"),
        ("h:1,socket_timeout=nan", "redis", "above 0"),
        ("h:1,socket_timeout=soon", "redis", "seconds"),
        ("h:1,max_connections=0", "redis", "from 1"),
        ("h:1,ssl_cert_reqs=some", "redis", "none, optional or required"),
        ("h:1,db=0,i:2", "redis", "hosts come first"),
        ("h:1,i:2", "redis", "2 hosts"),
        ("h:1,db=1", "redis_cluster", "db=1"),
        ("h:1", "valkey", "'valkey'"),
        ("http://h:1", "redis", "'http'"),
        ("redis://", "redis", "no single host"),
        ("redis://h:99999", "redis", "cannot be read"),
        ("redis://h:1,i:2", "redis_cluster", "cannot be read"),
        ("redis://h:1/zero", "redis", "whole number"),
        ("redis://h:1/0?db=1", "redis", "twice"),
        ("redis://h:1#1", "redis", "'#'"),
        ("redis://h:1?color=red", "redis", "'color'"),
        ("rediss://h:1?ssl=false", "redis", "ssl is false"),
        ("unix://", "redis", "no socket"),
        ("unix://run/redis.sock", "redis", "three slashes"),
        ("unix:///r.sock", "redis_cluster", "unix socket"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, redis_type: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text, redis_type)
    assert said in str(caught.value)


def test_unknown_parameter_is_refused_with_the_accepted_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target("h:1,decode_responses=true")
    assert "'decode_responses'" in str(caught.value)
    assert all(name in str(caught.value) for name in PARAMETERS)


@pytest.mark.parametrize(
    "text",
    [
        "h:1,password=begin,hunter2",
        "h:1,password=begin,hunter2=x",
        "h:1,password=begin,password=hunter2",
        "u:hunter2@h:1",
        "redis://:begin/hunter2@h:1",
        "redis://begin/hunter2@h:1",
        "redis://:hunter2#tail@h:1",
        "redis://:begin#hunter2@h:1",
        "redis://:hunter2@h:1/zero",
        "redis://:hunter2@h:port",
        "redis://:hunter2@h:1?password=hunter2",
        "redis://h:1?password=a&hunter2=1",
        "redis://[hunter2@h",
        "redis://:hunter2@",
        "ftp://:hunter2@h",
        "unix://:hunter2@run/redis.sock",
    ],
)
def test_no_piece_of_a_password_is_in_a_refusal(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(text)
    shown = caught.value
    while shown is not None:
        assert "hunter2" not in str(shown)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)


@pytest.mark.parametrize(
    "target",
    [
        parse_target(f"h:1,password={SECRET},sentinel_password={SECRET}", "redis_sentinel"),
        parse_target("redis://user:hidden@h:1"),
        parse_target("unix:///r.sock?password=hidden"),
    ],
    ids=["commas", "url", "unix"],
)
def test_password_is_never_in_repr_or_description(target: RedisTarget) -> None:
    for shown in (repr(target), str(target), target.description, f"{target}"):
        assert SECRET not in shown
        assert "hidden" not in shown


# --- settings ---------------------------------------------------------------------------------------


def test_redis_url_goes_before_connection_string(repo: Path) -> None:
    environ = {"REDIS_URL": "redis://other:7000/1"}
    assert settings_of(config("embedded"), repo, environ).hosts == (("other", 7000),)
    assert settings_of(config("mine:1"), repo, {"REDIS_URL": " "}).hosts == (("mine", 1),)
    assert not is_running(repo)


def test_a_bad_redis_url_is_named_as_such(repo: Path) -> None:
    with pytest.raises(ConfigError, match=r"^REDIS_URL"):
        settings_of(config("mine:1"), repo, {"REDIS_URL": "http://other"})


def test_certificate_paths_are_resolved_against_the_repo(repo: Path) -> None:
    target = settings_of(config("h:1,ssl=true,ssl_ca_certs=certs/ca.pem,ssl_keyfile=/etc/key.pem"), repo, {})
    assert target.options["ssl_ca_certs"] == str(repo / "certs/ca.pem")
    assert target.options["ssl_keyfile"] == "/etc/key.pem"


@pytest.mark.parametrize(("kind", "has_repo"), [("redis_cluster", True), ("redis_sentinel", True), ("redis", False)])
def test_embedded_is_one_redis_of_one_repo(repo: Path, kind: str, has_repo: bool) -> None:
    with pytest.raises(ConfigError, match="embedded"):
        settings_of(config("embedded", kind), repo if has_repo else None, {})
    assert not is_running(repo)
