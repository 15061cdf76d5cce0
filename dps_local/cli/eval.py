"""`dps-local eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.loading import load_model
from dps_local.cli.options import EvalOptions, JsonOption, ModelOptions, ScoreOptions, SeedOption, option_groups
from dps_local.cli.terminal import terminal
from dps_local.scoring.options import ScoringOptions


@option_groups
def evaluate(
    data: Annotated[
        list[Path], typer.Argument(help="LaMP's *_questions.json, with *_outputs.json beside it; or JSONL of users.")
    ],
    evaluation: EvalOptions,
    score: ScoreOptions,
    model: ModelOptions,
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Results go into this folder.")] = Path(
        "eval"
    ),
    seed: SeedOption = ScoringOptions.seed,
    as_json: JsonOption = False,
) -> None:
    """Measure whether steering helps, on what users really wrote, against the plain model and random heads.

    An interrupted run goes on where it stopped. Runs with other models or tasks may share a folder: its report.md and
    report.html show all of them.
    """
    # no other command need wait for these
    from dps_local.evaluation.comparison import compare
    from dps_local.evaluation.dataset import load_dataset
    from dps_local.evaluation.evaluation import Evaluation
    from dps_local.evaluation.report.console import summary_table
    from dps_local.evaluation.report.report import write_report

    dataset = load_dataset(data)
    if dataset.dropped:
        terminal.notice(f"{dataset.dropped} profile items are left out: they hold the answer to a query")
    loaded = load_model(model)
    options = evaluation.settings(model, score, seed, len(loaded.heads()))
    with terminal.progress("evaluating") as progress:
        run = Evaluation(loaded, dataset.users, options, out, progress)
        for line in run.notices():
            terminal.notice(line)
        run.run()
    rows = compare(run.records())
    write_report(out, rows, run.maps(), options.about(loaded))
    terminal.notice(f"wrote {out / 'report.md'} and {out / 'report.html'}")
    if as_json:
        terminal.json({"rows": [row.as_json() for row in rows]})
    else:
        terminal.show(summary_table(rows))
