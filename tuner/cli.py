"""The command ``tuner``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from tuner import __version__
from tuner.errors import TunerError

# Every command imports what it needs when it runs: ``tuner --help`` must answer at once.


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tuner")
def tuner() -> None:
    """Tune Keras networks by k-fold cross-validation, and see why each trial went as it did."""


@tuner.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--quick", is_flag=True, help="The version of a minute that the file declares, kept apart.")
@click.option("--trials", type=click.IntRange(min=1), help="Total number of trials, earlier sessions included.")
@click.option("--seed", type=click.IntRange(min=0), help="Replaces the study's random_state.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Start no trial after so many seconds.")
@click.option("--jobs", type=click.IntRange(min=1), help="Worker processes.")
@click.option("--storage", help="Where finished trials are kept: a journal file (.log) or a database URL.")
@click.option("--no-tracking", is_flag=True, help="Leave MLflow out.")
@click.option("--fresh", is_flag=True, help="Set the finished trials of this study aside and start anew.")
def run(
    file: str,
    quick: bool,
    trials: int | None,
    seed: int | None,
    timeout: float | None,
    jobs: int | None,
    storage: str | None,
    no_tracking: bool,
    fresh: bool,
) -> None:
    """Run the study that FILE declares, or what is left of it.

    A file that answers its question is run from the start. Its answer is printed, tracked and written into the folder
    results beside the file, or into results/quick.
    """
    from tuner.answer import RESULTS
    from tuner.study import load_study_file

    changes: dict[str, Any] = {
        "n_trials": trials,
        "random_state": seed,
        "timeout": timeout,
        "n_jobs": jobs,
        "storage": storage,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if no_tracking:
        changes["tracking"] = None
    study_file = load_study_file(file)
    try:
        answer = study_file.run(quick=quick, fresh=fresh, **changes)
    except KeyboardInterrupt:
        click.echo("Interrupted. Finished trials are kept; the same command goes on.")
        sys.exit(130)
    if answer is not None:
        click.echo(f"\n{study_file.question}\n\n{answer}")
        folder = study_file.path.parent / RESULTS / ("quick" if quick else "")
        click.echo(f"Kept: {', '.join(map(str, answer.save(folder, study_file.path.stem)))}")
    if "mlflow" in [changes.get("tracking", study.tracking) for study in study_file.studies]:
        click.echo("See the runs with: tuner ui   (or: make ui)")


@tuner.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def report(folder: str) -> None:
    """Write the questions and answers of FOLDER's study files into its README.md, from what is kept in results."""
    from tuner.answer import write_index

    click.echo(f"Written: {write_index(folder)}")


@tuner.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.option("--store", help="MLflow tracking URI; by default the one that is set, else mlruns/mlflow.db.")
def ui(port: int, store: str | None) -> None:
    """Start the MLflow UI on the results, on this machine only, and print the link to the runs."""
    from tuner.tracking.ui import serve_ui

    serve_ui(store, port=port)


@tuner.command()
@click.argument("model", required=False, type=click.Path(dir_okay=False))
@click.argument("data", required=False, type=click.Path(dir_okay=False))
@click.option("--epochs", type=click.IntRange(min=1), default=5, show_default=True, help="How long to train.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--target", help="The target's column in a CSV file; the last one by default.")
@click.option("--plots", type=click.Path(file_okay=False), help="A folder to write two pictures to.")
@click.option("--study", help="Show what the trials of this study said instead.")
@click.option("--trial", type=click.IntRange(min=0), help="The number of one trial of the study.")
@click.option("--storage", help="Where the study is kept; by default as for tuner run.")
def diagnose(
    model: str | None,
    data: str | None,
    epochs: int,
    batch_size: int,
    target: str | None,
    plots: str | None,
    study: str | None,
    trial: int | None,
    storage: str | None,
) -> None:
    """Say what is wrong with a network's gradients, and what would mend it.

    MODEL is a compiled model that Keras saved, DATA what to train it on: a .npz file with the arrays X and y, or a .csv
    file with headings. Or --study NAME lists the verdicts on a study's trials, and --trial N shows the whole report of
    one of them.
    """
    if study is not None:
        if model is not None or plots is not None:
            raise click.UsageError("--study shows what is stored: it takes no MODEL, DATA or --plots.")
        from tuner.diagnose import stored_report, stored_verdicts
        from tuner.study import DEFAULT_STORAGE

        storage = storage or DEFAULT_STORAGE
        if trial is not None:
            click.echo(str(stored_report(storage, study, trial)))
        else:
            click.echo("\n".join(stored_verdicts(storage, study)) or f"{study} has no finished trials.")
        return
    if model is None or data is None or trial is not None or storage is not None:
        raise click.UsageError("give MODEL and DATA, or --study NAME with an optional --trial N and --storage.")
    from tuner.diagnose import diagnose_files

    report = diagnose_files(model, data, target=target, epochs=epochs, batch_size=batch_size)
    click.echo(str(report))
    if plots is not None:
        from tuner.report.svg import depth_profile, heat_map

        folder = Path(plots)
        folder.mkdir(parents=True, exist_ok=True)
        heat_map(report).save(folder / "health_map.svg")
        depth_profile(report).save(folder / "health_profile.svg")
        click.echo(f"Pictures: {folder / 'health_map.svg'}, {folder / 'health_profile.svg'}")


def main() -> None:
    """Run the command; an error of tuner is a line on stderr and exit status 2, not a traceback."""
    try:
        tuner(prog_name="tuner")
    except TunerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
