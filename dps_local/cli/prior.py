"""`dps-local prior build` and `dps-local prior show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.loading import load_model
from dps_local.cli.options import JsonOption, ModelOptions, option_groups
from dps_local.cli.terminal import decode_argument, terminal
from dps_local.engine import self_test
from dps_local.maps.prior import Prior
from dps_local.prompting.profile import load_people
from dps_local.scoring.build_prior import build_prior
from dps_local.scoring.posterior import posterior
from dps_local.scoring.promised_step import PromisedStep

prior_app = typer.Typer(
    no_args_is_help=True,
    help="Priors: what many people's texts of one kind of writing say about a model's heads, for anyone who writes it.",
)


def _text(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("the text is empty")
    return decode_argument(text).strip()


@prior_app.command("build")
@option_groups
def build(
    model: ModelOptions,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES...", help="Profiles, folders of them, or .jsonl files with a profile a line."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the prior (.prior.gguf).")],
    writing: Annotated[str, typer.Option(callback=_text, help="What kind of writing it is, such as mail.")],
    source: Annotated[str, typer.Option(callback=_text, help="Where the texts are from.")],
    licence: Annotated[str, typer.Option(callback=_text, help="The licence of the texts.")],
    items: Annotated[int, typer.Option(min=2, help="History items of each person, the newest.")] = 16,
    samples: Annotated[int, typer.Option(min=1, help="Texts that the model draws for each item.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Build a prior of the profiles of three people or more. It holds numbers, and none of the texts.

    A build that was stopped goes on where it was.
    """
    people = load_people(files, terminal.notice)  # first, as mistakes are found at once
    loaded = load_model(model)
    loaded.trained_ctx(model.ctx_size, terminal.notice)
    with terminal.progress("measuring texts", preparation="reading the profiles") as progress:
        prior = build_prior(
            loaded,
            people,
            writing=writing,
            source=source,
            licence=licence,
            items=items,
            n_samples=samples,
            n_ctx=model.ctx_size,
            n_threads=model.threads,
            progress=progress,
        )
    prior.save(output)
    terminal.notice(f"wrote {output}")
    _show(prior, as_json)


@prior_app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A prior (.prior.gguf).")],
    as_json: JsonOption = False,
) -> None:
    """Show what a prior is made of, and what it promises."""
    self_test.check(terminal.notice, offload=False)
    _show(Prior.load(file), as_json)


def _show(prior: Prior, as_json: bool) -> None:
    anyone = posterior(prior.population)
    step = PromisedStep(anyone, anyone.step, (1.0, 0.0), (prior.error,))
    gain, deviation = step.expected(step.gamma)
    helps = step.helps(step.gamma)
    if as_json:
        promise = {"gamma": step.gamma, "gain": gain, "gain_deviation": deviation, "helps": helps}
        terminal.json(prior.as_json() | promise)
        return
    rows = [
        ["model", prior.model],
        ["people", str(prior.people)],
        ["texts", str(prior.texts)],
        ["tokens", f"{prior.tokens} of {prior.nll:.2f} nats"],
        ["source", prior.source],
        ["licence", prior.licence],
        *(
            [f"worth at γ {gamma:g}", f"{gain:+.4f} ± {deviation:.4f} nats a token"]
            for gamma in map(float, prior.error.gammas)
            for gain, deviation in [step.expected(gamma)]
        ),
        ["γ of the best lower bound", f"{step.gamma:.2f}"],
        ["helps a new person", f"with probability {helps:.2f}"],
    ]
    terminal.table(["writing", prior.writing], rows)
