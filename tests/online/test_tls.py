"""TLS to a real Redis under a certificate authority of the test's own, from `connection_string` and `REDIS_URL`."""

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from store.errors import OnlineStoreUnavailable
from tests.redis_servers import RedisServer, private_cluster, private_redis_tcp, private_sentinel, tls_redis
from tests.stores import NOW, make_store, user_rows

PASSWORD = "s3cret-P@ss"
USERS = {"user_id": [1, 2, 99]}
ANSWER = [10, 20, None]


@dataclass(frozen=True)
class Certificates:
    """A private authority and what it has signed: for 127.0.0.1, for another host, and for a client."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on the PATH; on Debian: apt-get install openssl")
        made = cls(folder)
        made._openssl("req", "-x509", "-subj", "/CN=Test authority", "-days", "2", *made._new("ca"))
        for name, host in (("server", "IP:127.0.0.1"), ("elsewhere", "DNS:redis.example.org"), ("client", "DNS:me")):
            request = ("-subj", f"/CN={name}", "-addext", f"subjectAltName={host}", "-days", "2", *made._new(name))
            made._openssl("req", "-x509", "-CA", str(made / "ca.crt"), "-CAkey", str(made / "ca.key"), *request)
        return made

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def _new(self, name: str) -> tuple[str, ...]:
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc")
        return (*kind, "-keyout", str(self / f"{name}.key"), "-out", str(self / f"{name}.crt"))

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def options(self, name: str) -> tuple[str, ...]:
        """Returns the settings of a Redis that shows the certificate of a name."""
        files = ("--tls-cert-file", str(self / f"{name}.crt"), "--tls-key-file", str(self / f"{name}.key"))
        authority = ("--tls-ca-cert-file", str(self / "ca.crt"))
        return (*files, *authority, "--tls-auth-clients", "no")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    tls_redis()
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


Start = Callable[..., str]


@pytest.fixture
def start(certificates: Certificates, tmp_path: Path) -> Iterator[Start]:
    """Returns a function that starts a Redis with TLS alone, and returns its address."""
    with ExitStack() as stack:

        def started(name: str = "server", *, asks_clients: bool = False) -> str:
            options = certificates.options(name)
            server = stack.enter_context(
                private_redis_tcp(tmp_path, *options, "--requirepass", PASSWORD, binary=tls_redis(), is_tls=True)
            )
            if asks_clients:
                # Only now: the helper that waits for the server has no certificate to show.
                with server.client(password=PASSWORD) as client:
                    client.config_set("tls-auth-clients", "yes")
            return server.address

        yield started


def answers(repo: Path, connection_string: str, **options: Any) -> list[list[Any]]:
    """Returns what users' orders are, written and asked for by the sync client, and asked for by the async one."""
    store = make_store(repo, connection_string, **options)
    store.write_to_online_store("users", user_rows())
    found = [store.get_online_features(["users:orders"], USERS).to_dict()["orders"]]

    async def ask() -> Any:
        try:
            return await store.get_online_features_async(["users:orders"], USERS)
        finally:
            await store.close()

    return [*found, asyncio.run(ask()).to_dict()["orders"]]


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_CLOCK", NOW.isoformat())


def test_comma_form_with_a_private_authority_in_the_repo(repo: Path, start: Start, certificates: Certificates) -> None:
    shutil.copy(certificates / "ca.crt", repo / "ca.crt")
    text = f"{start()},ssl=true,ssl_ca_certs=ca.crt,password={PASSWORD}"
    assert answers(repo, text) == [ANSWER, ANSWER]


def test_redis_url_with_password_and_private_authority(
    repo: Path, start: Start, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"rediss://:{quote(PASSWORD)}@{start()}/3?ssl_ca_certs={certificates / 'ca.crt'}"
    monkeypatch.setenv("REDIS_URL", url)
    assert answers(repo, "127.0.0.1:1") == [ANSWER, ANSWER]


def test_a_redis_that_asks_for_a_certificate_gets_the_clients(
    repo: Path, start: Start, certificates: Certificates
) -> None:
    text = f"{start(asks_clients=True)},ssl=true,ssl_ca_certs={certificates / 'ca.crt'},password={PASSWORD}"
    client = f",ssl_certfile={certificates / 'client.crt'},ssl_keyfile={certificates / 'client.key'}"
    assert answers(repo, text + client) == [ANSWER, ANSWER]
    assert_unavailable(repo, text, "cannot be reached")


def test_a_certificate_that_cannot_be_trusted_is_refused(repo: Path, start: Start, certificates: Certificates) -> None:
    address = start("elsewhere")
    authority = f"ssl_ca_certs={certificates / 'ca.crt'}"
    assert_unavailable(repo, f"{address},ssl=true,password={PASSWORD}", "(?i)certificate")
    assert_unavailable(repo, f"{address},ssl=true,{authority},password={PASSWORD}", "(?i)certificate|hostname|IP")
    # Who says so gets a connection that is encrypted and whose other end may be anybody.
    trusting = f"{address},ssl=true,{authority},ssl_check_hostname=false,password={PASSWORD}"
    assert answers(repo, trusting) == [ANSWER, ANSWER]


def test_without_tls_or_with_a_wrong_password_nothing_is_said(
    repo: Path, start: Start, certificates: Certificates
) -> None:
    address = start()
    assert_unavailable(repo, f"{address},password={PASSWORD}", "cannot be reached|no Redis")
    wrong = f"{address},ssl=true,ssl_ca_certs={certificates / 'ca.crt'},password=wrong-{PASSWORD}"
    assert_unavailable(repo, wrong, "login")


def test_sentinel_and_master_behind_tls(repo: Path, certificates: Certificates, tmp_path: Path) -> None:
    options = certificates.options("server")
    lines = [f"{name.removeprefix('--')} {value}" for name, value in zip(options[::2], options[1::2], strict=True)]
    with (
        private_redis_tcp(tmp_path, *options, "--requirepass", PASSWORD, binary=tls_redis(), is_tls=True) as master,
        private_sentinel(
            tmp_path,
            master,
            "larder",
            f"sentinel auth-pass larder {PASSWORD}",
            "tls-replication yes",
            *lines,
            binary=tls_redis(),
            is_tls=True,
        ) as watcher,
    ):
        text = f"{watcher.address},ssl=true,sentinel_ssl=true,ssl_ca_certs={certificates / 'ca.crt'}"
        settings = {"redis_type": "redis_sentinel", "sentinel_master": "larder"}
        assert answers(repo, f"{text},password={PASSWORD}", **settings) == [ANSWER, ANSWER]


def test_a_cluster_behind_tls_with_a_password(repo: Path, certificates: Certificates, tmp_path: Path) -> None:
    options = certificates.options("server")
    with private_cluster(tmp_path, *options, password=PASSWORD, binary=tls_redis(), is_tls=True) as nodes:
        shutil.copy(certificates / "ca.crt", repo / "ca.crt")
        # All nodes but the first are found by asking it.
        text = f"{nodes[0].address},ssl=true,ssl_ca_certs=ca.crt"
        cluster = {"redis_type": "redis_cluster"}
        assert answers(repo, f"{text},password={PASSWORD}", **cluster) == [ANSWER, ANSWER]
        assert_rows_on_all_nodes(repo, nodes, f"{text},password={PASSWORD}", **cluster)
        assert_unavailable(repo, f"{text},password=wrong-{PASSWORD}", "login|lacks nodes", **cluster)
        untrusted = f"{nodes[0].address},ssl=true,password={PASSWORD}"
        assert_unavailable(repo, untrusted, "cannot be reached|lacks nodes", **cluster)


def assert_rows_on_all_nodes(repo: Path, nodes: list[RedisServer], connection_string: str, **options: Any) -> None:
    store = make_store(repo, connection_string, user_rows(60), **options)
    store.materialize(NOW - timedelta(days=1), NOW)
    users = {"user_id": list(range(1, 61))}
    assert store.get_online_features(["users:orders"], users).to_dict()["orders"] == [
        10 * user for user in range(1, 61)
    ]
    assert all(node.client(password=PASSWORD).keys("*user_id*") for node in nodes)
    store.teardown()
    assert [node.client(password=PASSWORD).dbsize() for node in nodes] == [0, 0, 0]


def assert_unavailable(repo: Path, connection_string: str, words: str, **options: Any) -> None:
    with pytest.raises(OnlineStoreUnavailable, match=words) as caught:
        answers(repo, connection_string, **options)
    assert PASSWORD not in str(caught.value)
