"""`dps-local bench scoring` and `dps-local bench decode`."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Annotated

import typer

from dps_local.assistant import Settings
from dps_local.bench.decode_bench import DecodeBench, amplification, bench_decoding
from dps_local.bench.scoring_bench import ScoringBench, bench_scoring
from dps_local.cli.loading import load_assistant, load_model
from dps_local.cli.options import (
    BetaOption,
    GammaOption,
    JsonOption,
    MapOption,
    ModelOptions,
    ProfileOption,
    ScoreOptions,
    TempOption,
    option_groups,
)
from dps_local.cli.terminal import terminal
from dps_local.engine.sampler import Sampling
from dps_local.prompting.prompt import request_of
from dps_local.scoring.forked_sequences import MAX_TARGET
from dps_local.steering.mixing import Gamma
from dps_local.system import memory

bench_app = typer.Typer(no_args_is_help=True, help="Time what dps-local does against what llama.cpp does by itself.")
LABELS = {
    "eager": "contrast, eager",
    "speculative": "contrast, speculative",
    "together": "contrast, together",
    "amplify": "amplified heads",
}


@bench_app.command("scoring")
@option_groups
def scoring(
    model: ModelOptions,
    prompt_tokens: Annotated[int, typer.Option(min=2, help="Tokens before what is scored.")] = 250,
    target_tokens: Annotated[int, typer.Option(min=1, max=MAX_TARGET, help="Tokens that are scored.")] = 25,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    parallel: Annotated[int | None, typer.Option(min=1, help="Heads at a time. Default: what fits.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the scoring of all heads against llama.cpp's prompt processing, and against one forward for each head."""
    loaded = load_model(model)
    with terminal.progress("timing", unit="repeats") as progress:
        bench = bench_scoring(loaded, prompt_tokens, target_tokens, repeats, parallel, model.threads, progress)
    if as_json:
        terminal.json(bench.as_json() | {"peak_memory": memory.peak()})
    else:
        terminal.table([bench.model, "", ""], _scoring_rows(bench, repeats))


def _scoring_rows(bench: ScoringBench, repeats: int) -> list[list[str]]:
    ratios, speedups = sorted(bench.ratios()), sorted(bench.speedups())
    return [
        [
            "scored tokens a second",
            f"{bench.scored_tokens_per_s():.0f}",
            f"{bench.heads} heads, {bench.heads_at_a_time} at a time",
        ],
        ["null control", f"{bench.null_control():g}", _shape(bench)],
        [
            "prompt tokens a second",
            f"{bench.prompt_tokens_per_s():.0f}",
            "llama.cpp itself, with logits at every position",
        ],
        ["ratio", f"{median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {repeats} repeats"],
        ["times faster than brute force", f"{median(speedups):.1f}", f"{speedups[0]:.1f} to {speedups[-1]:.1f}"],
        ["… without the prompt's logits", f"{median(bench.lean_speedups()):.1f}", "than a leaner brute force"],
        *_slope_rows(bench),
        ["peak memory", f"{memory.peak() / 1e9:.2f} GB", ""],
    ]


def _shape(bench: ScoringBench) -> str:
    if bench.heads_at_a_time == bench.most_heads_at_a_time:
        return "what doing nothing changes"
    return f"what doing nothing changes; it is not 0 with {bench.most_heads_at_a_time} heads at a time"


def _slope_rows(bench: ScoringBench) -> list[list[str]]:
    tokens, ratio, speedup = bench.slope_tokens_per_s(), bench.slope_ratio(), bench.slope_speedup()
    if tokens is None or ratio is None or speedup is None:
        return [["slopes", "", "this architecture has no backward pass"]]
    return [
        [
            "own tokens a second",
            f"{tokens:.0f}",
            f"that give the slopes of all heads, {bench.slope_texts} texts at a time",
        ],
        ["… by prompt tokens a second", f"{ratio:.2f}", ""],
        ["… by those of ablation", f"{speedup:.0f}", ""],
    ]


@bench_app.command("decode")
@option_groups
def decode(
    model: ModelOptions,
    score: ScoreOptions,
    profile: Annotated[str, ProfileOption],
    map: MapOption = None,
    gamma: GammaOption = None,
    beta: BetaOption = Settings.beta,
    temp: TempOption = 0.0,
    prompts: Annotated[int, typer.Option(min=1, help="Requests of the profile's history to answer, the newest.")] = 20,
    n_predict: Annotated[int, typer.Option("-n", "--n-predict", min=2, help="Tokens of an answer.")] = 128,
    as_json: JsonOption = False,
) -> None:
    """Time a token of a steered answer against one of llama.cpp by itself."""
    sampling = Sampling(temp=temp, seed=1)
    settings = replace(score.settings(model), gamma=gamma or Gamma(0.5), mode="contrast", beta=beta, sampling=sampling)
    assistant = load_assistant(model, profile, map, settings, score)
    session, amplify = assistant.session, amplification(assistant.model, assistant.heads)
    requests = [request_of(item) for item in assistant.prompter.profile.history] if assistant.prompter else []
    with terminal.progress("timing", unit="prompts") as progress:
        bench = bench_decoding(session, amplify, requests[-prompts:], n_predict, sampling, progress)
    if amplify is None:
        terminal.notice("the head map has no weights to amplify heads by: amplification is not timed")
    if as_json:
        terminal.json(bench.as_json() | {"beta": beta, "temp": temp, "peak_memory": memory.peak()})
    else:
        _show_decoding(bench)


def _show_decoding(bench: DecodeBench) -> None:
    means = bench.as_json()
    rows = [["llama.cpp alone", f"{median(bench.ms['plain']):.1f} ms a token", "1"]]
    for method, label in LABELS.items():
        if method not in bench.ms:
            continue
        ratios = sorted(bench.ratios(method))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append([label, f"{median(bench.ms[method]):.1f} ms a token", spread])
    rows += [
        ["steps with several plausible tokens", f"{means['uncertain_share']:.0%}", ""],
        *[
            [f"tokens equal to the eager engine's, {engine}", f"{bench.same_tokens(engine):.2%}", f"of {n}"]
            for engine, n in bench.compared.items()
        ],
        [
            "time to the first token",
            f"{means['cold_ttft_ms']:.0f} ms",
            f"{means['warm_ttft_ms']:.0f} ms from the cache",
        ],
        ["peak memory", f"{memory.peak() / 1e9:.2f} GB", ""],
    ]
    terminal.table([bench.model, "", f"by llama.cpp, {means['prompts']} prompts"], rows)
