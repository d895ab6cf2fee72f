"""The `larder` command: each subcommand imports what it needs when it runs, so that `--help` is quick."""

import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from cli.monitor import app as monitor

app = typer.Typer(
    name="larder",
    help="A self-hosted feature store on Feast, DuckDB, Parquet and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(monitor, name="monitor")

Repo = Annotated[Path, typer.Option(help="The folder that holds feature_store.yaml.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"larder {installed_version('larder')}")
        raise typer.Exit


@app.command()
def serve(
    repo: Repo = Path("feature_repo"),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 6566,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes behind the port.")] = 1,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve other machines although no tokens are configured.")
    ] = False,
    access_log: Annotated[bool, typer.Option("--access-log", help="Log every request as a line of JSON.")] = False,
) -> None:
    """Serve features over HTTP."""
    from server.run import serve as run_server
    from server.settings import settings_for

    settings = settings_for(repo, host, port, workers, allow_anonymous=allow_anonymous, access_log=access_log)
    raise typer.Exit(run_server(settings))


@app.command()
def demo(
    repo: Repo = Path("feature_repo"),
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Stop before the model: sources, registry and Redis stand.")
    ] = False,
) -> None:
    """Take real flights through the whole job and tell what happens."""
    from store.errors import ConfigError

    if not (repo / "feature_store.yaml").is_file():
        raise ConfigError(
            f"feature repo {str(repo)!r} has no feature_store.yaml; name the demo's folder with --repo, such as the "
            "feature_repo that comes with Larder"
        )
    from demo.account import run

    raise typer.Exit(run(repo, prepare_only))


@app.command()
def compact(
    names: Annotated[list[str] | None, typer.Argument(help="Feature views or sources; all by default.")] = None,
    repo: Repo = Path("feature_repo"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be merged, and change nothing.")] = False,
) -> None:
    """Merge the small files that pushes have landed, beside readers and writers."""
    from cli.compact import run

    raise typer.Exit(run(repo, names or [], is_dry_run=dry_run))


@app.command()
def materialize(
    views: Annotated[list[str] | None, typer.Argument(help="Feature views; all by default.")] = None,
    start: Annotated[str | None, typer.Option(help="From when on, in ISO 8601; where the last run ended.")] = None,
    end: Annotated[str | None, typer.Option(help="Until when, exclusive; now by default.")] = None,
    repo: Repo = Path("feature_repo"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Say it in JSON.")] = False,
) -> None:
    """Materialize as `feast materialize` and `materialize-incremental` do, or say what that would be."""
    from cli.materialize import run

    raise typer.Exit(run(repo, views or [], start=start, end=end, is_dry_run=dry_run, is_json=is_json))


@app.command()
def explain(
    view: Annotated[str, typer.Argument(help="The feature view.")],
    key: Annotated[str, typer.Argument(help="The entity key: column=value[,column=value].")] = "",
    repo: Repo = Path("feature_repo"),
    at: Annotated[str | None, typer.Option("--at", help="As of when, in ISO 8601; now by default.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Show what is served for one key, what training would see, and why they agree or differ."""
    from cli.explain import run

    raise typer.Exit(run(repo, view, key, at=at, is_json=is_json))


@app.command()
def audit(
    repo: Repo = Path("feature_repo"),
    service: Annotated[list[str] | None, typer.Option(help="A logged feature service; repeat it; all if none.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="From which request time on, in ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="At most so many vectors of each service.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Hold what was served against what was known then, and against what training sees today."""
    from cli.audit import run

    raise typer.Exit(run(repo, service or [], start=start, end=end, sample=sample, is_json=is_json))


@app.command()
def erase(
    key: Annotated[str, typer.Argument(help="What the entity keys contain: column=value[,column=value].")],
    repo: Repo = Path("feature_repo"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Erase the rows of an entity from Redis and from the files that Larder landed, and prove it."""
    from cli.erase import run

    raise typer.Exit(run(repo, key, is_dry_run=dry_run, is_confirmed=yes, is_json=is_json))


@app.command()
def ingest(
    repo: Repo = Path("feature_repo"),
    partitions: Annotated[str, typer.Option(help="Only these partitions, as in 0,3-5; any by default.")] = "",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="The address of that port.")] = "127.0.0.1",
) -> None:
    """Apply the events of windowed views to Redis and land them: the worker of the event log."""
    from cli.ingest import run

    raise typer.Exit(run(repo, partitions, (metrics_host, metrics_port) if metrics_port else None))


class LetterAction(StrEnum):
    """What `larder deadletter` does."""

    LIST = "list"
    REPLAY = "replay"


@app.command()
def deadletter(
    action: Annotated[LetterAction, typer.Argument(help="list or replay.")],
    numbers: Annotated[list[int] | None, typer.Argument(help="Letters to replay; all that wait by default.")] = None,
    repo: Repo = Path("feature_repo"),
    row: Annotated[str | None, typer.Option(help="For one letter: its row corrected, as a JSON object.")] = None,
    every: Annotated[bool, typer.Option("--all", help="List those too that were replayed.")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """List the rows of inboxes and topics that did not fit, or put them into the log once more."""
    from cli.deadletter import list_letters, replay_letters

    if action is LetterAction.LIST:
        raise typer.Exit(list_letters(repo, is_all=every, is_json=is_json))
    raise typer.Exit(replay_letters(repo, numbers or [], row, is_json=is_json))


@app.command()
def token(
    name: Annotated[str, typer.Option(help="Who the token is for; shown in refusals.")] = "new-token",
    scope: Annotated[list[str] | None, typer.Option(help="read, write or admin; repeat for several.")] = None,
) -> None:
    """Make a token: the secret for its bearer, and the entry for the file that LARDER_TOKENS_FILE names."""
    import json

    from server.auth import Scope, digest_of, new_token

    scopes = scope or [Scope.READ]
    unknown = sorted(set(scopes) - set(Scope))
    if unknown:
        raise typer.BadParameter(f"{unknown} are no scopes; they are {[str(s) for s in Scope]}", param_hint="--scope")
    secret = new_token()
    typer.echo("The token, shown only now:", err=True)
    typer.echo(secret)
    typer.echo("Its entry for the tokens file:", err=True)
    entry = {"name": name, "sha256": digest_of(secret), "scopes": [str(s) for s in dict.fromkeys(scopes)]}
    typer.echo(f"- {json.dumps(entry)}")


def main() -> None:
    """Runs the command; an error that Larder raised on purpose is one sentence and exit code 1."""
    from store.errors import LarderError

    try:
        app()
    except LarderError as error:
        print(f"larder: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
