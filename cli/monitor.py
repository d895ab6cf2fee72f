"""`larder monitor`: one module per command, each imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="monitor",
    help="Profile features, and tell when their distributions move.",
    no_args_is_help=True,
)

Repo = Annotated[Path, typer.Option(help="The folder that holds feature_store.yaml.")]


@app.command()
def profile(  # noqa: PLR0913, PLR0917 - an option each
    view: Annotated[list[str] | None, typer.Option(help="A feature view; repeat it.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="A logged feature service; repeat it.")] = None,
    training_set: Annotated[
        list[str] | None, typer.Option(help="A saved training set, or a Parquet file; repeat it.")
    ] = None,
    push_source: Annotated[list[str] | None, typer.Option(help="A push source; repeat it.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="From when on, in ISO 8601; what is due if none.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    every: Annotated[str, typer.Option(help="How long each profile's stretch of time is: 1d, 6h, 30m, 1w.")] = "1d",
    keep_days: Annotated[int | None, typer.Option(min=1, help="Delete profiles of older days, and old runs.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    repo: Repo = Path("feature_repo"),
) -> None:
    """Sum up the values of features, and keep it: all views, logged services and push sources if none is named."""
    from cli.monitor_profile import Asked, run

    asked = Asked(
        views=view or (),
        services=service or (),
        training_sets=training_set or (),
        push_sources=push_source or (),
        start=start,
        end=end,
        every=every,
        keep_days=keep_days,
    )
    raise typer.Exit(run(repo, asked, is_json=is_json))


@app.command()
def drift(  # noqa: PLR0913, PLR0917 - an option each
    view: Annotated[list[str] | None, typer.Option(help="A feature view; repeat it.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="A logged feature service; repeat it.")] = None,
    training_set: Annotated[list[str] | None, typer.Option(help="A saved training set; repeat it.")] = None,
    push_source: Annotated[list[str] | None, typer.Option(help="A push source; repeat it.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Of the current profiles, in ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Until when, exclusive.")] = None,
    reference_training_set: Annotated[str | None, typer.Option(help="Compare with this training set.")] = None,
    reference_service: Annotated[str | None, typer.Option(help="Compare with this service's log.")] = None,
    reference_from: Annotated[str | None, typer.Option(help="Compare with the time from here on.")] = None,
    reference_to: Annotated[str | None, typer.Option(help="Until when, exclusive.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    repo: Repo = Path("feature_repo"),
    no_webhook: Annotated[bool, typer.Option("--no-webhook", help="Tell alarms to nobody else.")] = False,
) -> None:
    """Hold current profiles against their references; the status is 1 if any feature has drifted."""
    from cli.monitor_drift import Asked, run

    asked = Asked(
        views=view or (),
        services=service or (),
        training_sets=training_set or (),
        push_sources=push_source or (),
        span=(start, end),
        reference_training_set=reference_training_set,
        reference_service=reference_service,
        reference_span=(reference_from, reference_to),
    )
    raise typer.Exit(run(repo, asked, is_json=is_json, is_webhook_told=not no_webhook))


@app.command()
def report(
    output: Annotated[Path | None, typer.Option(help="The HTML file; data/monitor/report.html of the repo.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    repo: Repo = Path("feature_repo"),
) -> None:
    """Write what monitoring last found as one HTML file; the status is 1 if a feature drifted or the audit failed."""
    from cli.monitor_report import run

    raise typer.Exit(run(repo, output, is_json=is_json))
