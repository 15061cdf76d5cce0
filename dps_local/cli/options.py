"""Options that several commands share, as dataclasses; `option_groups` turns them into options of the command line."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from dps_local.assistant import Settings
from dps_local.cli.completion import complete_map, complete_model, complete_profile
from dps_local.engine.model import Scope
from dps_local.engine.rpc import Endpoint
from dps_local.engine.sampler import RANDOM_SEED, Sampling
from dps_local.errors import SettingsError
from dps_local.evaluation.condition import METHODS, Method
from dps_local.evaluation.evaluation_options import EvaluationOptions, HeadSource, ItemSelection, UserSubset
from dps_local.evaluation.grid import Grid
from dps_local.maps.cluster_map import Routing
from dps_local.maps.selection import Ranking, top_k
from dps_local.scoring.forked_sequences import MAX_TARGET
from dps_local.scoring.options import ScoringOptions
from dps_local.steering.decoding import Engine
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import SteeringMode


def _parse_gamma(text: str) -> Gamma:
    try:
        return Gamma.parse(text)
    except SettingsError as exc:
        raise typer.BadParameter(str(exc)) from exc


def not_empty(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise typer.BadParameter("the name is empty: leave the option out, or give a name")
    return name


def _check_temperature(temp: float) -> float:
    if temp != 0 and not 0.001 <= temp <= 1000:  # logits divided by less overflow
        raise typer.BadParameter(f"{temp:g} is neither 0 (greedy) nor from 0.001 to 1000")
    return temp


# panels of --help; above them stands what a person needs first
PANELS = STEERING, ANSWER, SCORING, CLUSTERS, EXPERT = "Steering", "Answer", "Scoring", "Clusters", "Expert"
steering_option, answer_option, scoring_option, cluster_option, expert_option = (
    functools.partial(typer.Option, rich_help_panel=panel) for panel in PANELS
)

ProfileOption = typer.Option(
    "--profile",
    "-p",
    callback=not_empty,
    autocompletion=complete_profile,
    help="A profile (JSON), or a shipped example: nell, mara, idris, odile.",
)
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        callback=not_empty,
        autocompletion=complete_model,
        help="A name from `dps-local models list`, or the path of a GGUF.",
    ),
]
ContextOption = Annotated[int, typer.Option("--ctx-size", "-c", min=256, help="Tokens of context.")]
SeedOption = Annotated[int, expert_option(min=0, max=2**31 - 1, help="Seed of the order of examples.")]
EmbeddingOption = Annotated[
    Path | None, cluster_option(help="A GGUF that embeds profiles for a cluster map. Default: the chat model itself.")
]
OfflineOption = Annotated[bool, expert_option("--offline", help="Reach no other machine.")]


def _endpoint_list(text: str) -> tuple[Endpoint, ...]:
    try:
        return tuple(dict.fromkeys(map(Endpoint.parse, _split_list(text))))
    except SettingsError as exc:
        raise typer.BadParameter(str(exc)) from exc


RpcOption = Annotated[
    Any,
    expert_option(
        parser=_endpoint_list,
        metavar="HOST:PORT,…",
        envvar=["LLAMA_ARG_RPC"],
        show_envvar=False,
        help="Other machines that hold layers of the model, as in llama.cpp: each runs `dps-local rpc-server`.",
    ),
]
MapOption = Annotated[
    Path | None,
    steering_option(autocompletion=complete_map, help="A head map (.dps.gguf) instead of the profile's own."),
]
GammaOption = Annotated[
    Gamma | None,
    typer.Option(
        parser=_parse_gamma,
        metavar="X",
        help="Strength of steering: a number (0 = off), or entropy[:normalised][:cap=X]. Default: the head map's.",
    ),
]
BetaOption = Annotated[
    float, steering_option(min=0, max=1, help="Only tokens with at least β times the top probability; 0 = the paper.")
]
TempOption = Annotated[float, typer.Option(callback=_check_temperature, metavar="X", help="Temperature; 0 is greedy.")]


@dataclass(frozen=True)
class ModelOptions:
    model: ModelOption = None
    ctx_size: ContextOption = Settings.n_ctx
    threads: Annotated[
        int | None,
        expert_option("--threads", "-t", min=1, help="Default: all processors, up to 16."),
    ] = None
    n_gpu_layers: Annotated[int | None, expert_option("--n-gpu-layers", "-ngl", help="As in llama.cpp.")] = None
    rpc: RpcOption = ""
    offline: OfflineOption = False


@dataclass(frozen=True)
class ScoreOptions:
    scope: Annotated[
        Scope, scoring_option(help="Mute the answer only, or the prompt too (slower by far to score).")
    ] = ScoringOptions.scope
    examples: Annotated[int, scoring_option(min=1, help="History items to score on, the newest; fewer is faster.")] = (
        ScoringOptions.examples
    )
    target_tokens: Annotated[
        int,
        scoring_option(min=1, max=MAX_TARGET, help="Tokens to score of each item; 4 times as many calibrate."),
    ] = ScoringOptions.target_tokens
    heads: Annotated[
        int | None, scoring_option("--heads", "-k", min=0, help="Choose at most so many. Default: 4 %.")
    ] = None
    ranking: Annotated[
        Ranking,
        scoring_option(
            "--score", help="Choose heads by PCS, by its part that favours your words, or by the profile's."
        ),
    ] = ScoringOptions.ranking
    contrast: Annotated[
        bool, scoring_option("--profile-contrast", help="Also measure PCS without the profile; takes twice as long.")
    ] = ScoringOptions.contrast
    ablation_scale: Annotated[
        float, scoring_option(help="The scale heads are evaluated at: 0 mutes them, 0.9 gives a slope near 1.")
    ] = ScoringOptions.ablation_scale
    exhaustive: Annotated[
        bool,
        scoring_option("--exhaustive", help="Every head on every example, instead of dropping poor ones early."),
    ] = ScoringOptions.exhaustive
    reuse: Annotated[bool, scoring_option("--reuse/--no-reuse", help="Take up what an earlier run has measured.")] = (
        ScoringOptions.resume
    )
    profile_tokens: Annotated[
        int | None, scoring_option(min=1, help="Tokens of the context for the profile. Default: a quarter.")
    ] = None

    def scoring(
        self, model: ModelOptions, parallel: int | None = None, seed: int = ScoringOptions.seed
    ) -> ScoringOptions:
        if self.ablation_scale == 1 or not math.isfinite(self.ablation_scale):
            raise typer.BadParameter("--ablation-scale 1 leaves a head as it is: choose another scale")
        return ScoringOptions(
            scope=self.scope,
            examples=self.examples,
            target_tokens=self.target_tokens,
            top=self.heads,
            ranking=self.ranking,
            contrast=self.contrast,
            ablation_scale=self.ablation_scale,
            exhaustive=self.exhaustive,
            seed=seed,
            resume=self.reuse,
            parallel=parallel,
            n_threads=model.threads,
        )

    def settings(self, model: ModelOptions) -> Settings:
        return Settings(model.ctx_size, model.threads, self.profile_tokens)


@dataclass(frozen=True)
class ChatOptions:
    profile: Annotated[str | None, ProfileOption] = None
    gamma: GammaOption = None
    n_predict: Annotated[int, typer.Option("-n", "--n-predict", min=-1, help="Tokens of an answer; -1: no limit.")] = (
        512
    )
    temp: TempOption = Sampling.temp
    map: MapOption = None
    mode: Annotated[
        SteeringMode | None,
        steering_option(
            help="Contrast two streams; amplify heads in one; cad: contrast with a stream that sees no profile, which "
            "needs no scoring. Default: the head map's."
        ),
    ] = None
    beta: BetaOption = Settings.beta
    compare: Annotated[bool, steering_option("--compare", help="Show the unsteered answer before the steered one.")] = (
        False
    )
    markdown: Annotated[
        Literal["auto", "always", "never"],
        answer_option(help="Draw Markdown, each block when it is finished. auto: on a terminal with colours."),
    ] = "auto"
    top_k: Annotated[int, answer_option(min=0, help="0: off.")] = Sampling.top_k
    top_p: Annotated[float, answer_option(min=0, max=1, help="1: off.")] = Sampling.top_p
    min_p: Annotated[float, answer_option(min=0, max=1, help="0: off.")] = Sampling.min_p
    repeat_penalty: Annotated[float, answer_option(min=0.01, max=100, help="1: off.")] = Sampling.repeat_penalty
    seed: Annotated[int, answer_option(help="Seed of the sampler; -1 draws one.")] = -1
    routing: Annotated[
        Routing, cluster_option(help="With a cluster map: the nearest cluster alone, or a mixture of all.")
    ] = Settings.routing
    routing_temp: Annotated[
        float, cluster_option(min=0.001, help="Temperature of soft routing; lower is nearer to hard.")
    ] = Settings.routing_temp
    embedding_model: EmbeddingOption = None
    engine: Annotated[
        Engine,
        expert_option(
            help="How to compute a contrast: eager makes each step in both streams, one after the other; speculative "
            "decoding gives the same answer sooner; together takes both streams in one call, which is fastest where "
            "memory is what limits, as on a GPU. auto times calls once on this machine, and takes the fastest."
        ),
    ] = Settings.engine
    prefix_cache: Annotated[
        bool,
        expert_option("--prefix-cache/--no-prefix-cache", help="Keep what the model read of the profile."),
    ] = Settings.prefix_cache

    def settings(self, model: ModelOptions, score: ScoreOptions) -> Settings:
        sampling = Sampling(
            self.temp, self.top_k, self.top_p, self.min_p, self.repeat_penalty, seed=self.seed & RANDOM_SEED
        )
        return Settings(
            n_ctx=model.ctx_size,
            n_threads=model.threads,
            profile_tokens=score.profile_tokens,
            gamma=self.gamma,
            mode=self.mode,
            beta=self.beta,
            routing=self.routing,
            routing_temp=self.routing_temp,
            embedding_model=self.embedding_model,
            engine=self.engine,
            prefix_cache=self.prefix_cache,
            sampling=sampling,
        )


def _split_list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _gamma_list(text: str) -> tuple[Gamma, ...]:
    return tuple(map(_parse_gamma, _split_list(text)))


def _number_list(text: str, type_: type[float] | type[int], least: float) -> tuple[Any, ...]:
    try:
        numbers = tuple(map(type_, _split_list(text)))
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} is no list of numbers, such as 1,2,4") from exc
    if not all(least <= number < math.inf for number in numbers):
        raise typer.BadParameter(f"{text!r} has numbers below {least:g}, or infinite ones")
    return numbers


def _count_list(text: str) -> tuple[int, ...]:
    return _number_list(text, int, 0)


def _float_list(text: str) -> tuple[float, ...]:
    return _number_list(text, float, 0)


def _method_list(text: str) -> tuple[Method, ...]:
    names = METHODS if text == "all" else tuple(name for name in METHODS if name in _split_list(text))
    if unknown := [name for name in _split_list(text) if name not in (*METHODS, "all")]:
        raise typer.BadParameter(f"no method {unknown[0]!r}: choose of {', '.join(METHODS)}")
    if not names:
        raise typer.BadParameter(f"no method: choose of {', '.join(METHODS)}")
    return names


@dataclass(frozen=True)
class EvalOptions:
    methods: Annotated[
        Any, typer.Option(parser=_method_list, metavar="NAMES", help=f"All of them: {', '.join(METHODS)}; or all.")
    ] = "none,profile,cad,random,pcs,gain,amplify,calibrated"
    users: Annotated[int | None, typer.Option(min=1, help="Of each task, drawn at random. Default: all.")] = None
    queries: Annotated[int | None, typer.Option(min=1, help="Of each user, drawn at random. Default: all.")] = None
    gamma: Annotated[
        Any,
        typer.Option(parser=_gamma_list, metavar="LIST", help="γ of contrasts: the main one, then others to try."),
    ] = str(Grid.gammas[0])
    step: Annotated[
        Any, typer.Option(parser=_gamma_list, metavar="LIST", help="γ of amplified heads: the main one, then others.")
    ] = str(Grid.amplify_gammas[0])
    vector: Annotated[
        Any,
        typer.Option(parser=_gamma_list, metavar="LIST", help="Strength of 'style-vector': the main one, then others."),
    ] = str(Grid.vector_gammas[0])
    cache: Annotated[
        Any, typer.Option(parser=_gamma_list, metavar="LIST", help="Strength of 'cache': the main one, then others.")
    ] = str(Grid.cache_gammas[0])
    top: Annotated[
        Any, typer.Option(parser=_count_list, metavar="LIST", help="Muted heads: as many, then others. Default: 4 %.")
    ] = ""
    step_heads: Annotated[
        Any,
        typer.Option(parser=_count_list, metavar="LIST", help="Heads of 'prior' and 'prior-contrast'. Default: all."),
    ] = ""
    beta: Annotated[
        Any,
        typer.Option(parser=_float_list, metavar="LIST", help="β of the plausibility mask: the main one, then others."),
    ] = str(Grid.betas[0])
    items: Annotated[
        Any,
        typer.Option(parser=_count_list, metavar="LIST", help="Profile items shown: at most so many, then others."),
    ] = str(EvaluationOptions.items)
    random: Annotated[int, typer.Option(min=1, help="How many choices of random heads.")] = Grid.seeds
    chosen_by: Annotated[
        ItemSelection, typer.Option(help="Profile items: those that go with the query, or the newest.")
    ] = EvaluationOptions.chosen_by
    heads_from: Annotated[
        HeadSource, typer.Option(help="Score heads on the user's own items, or on what other users wrote.")
    ] = EvaluationOptions.source
    part: Annotated[
        UserSubset,
        typer.Option(help="Evaluate all users, or a random half: choose settings on one, confirm on the other."),
    ] = EvaluationOptions.subset
    clusters: Annotated[int, typer.Option(min=1, help="Clusters of other users.")] = EvaluationOptions.clusters
    answers: Annotated[
        bool, typer.Option("--answers/--likelihood", help="Generate answers, or take likelihoods alone (fast).")
    ] = EvaluationOptions.answers
    n_predict: Annotated[int, typer.Option("-n", "--n-predict", min=1, max=MAX_TARGET, help="Of an answer.")] = (
        EvaluationOptions.n_predict
    )
    temp: TempOption = 0.8
    samples: Annotated[int, typer.Option(min=1, help="Answers a query; one where --temp is 0.")] = (
        EvaluationOptions.samples
    )

    def settings(self, model: ModelOptions, score: ScoreOptions, seed: int, n_heads: int) -> EvaluationOptions:
        if not (self.gamma and self.step and self.beta and self.items and self.vector and self.cache):
            raise typer.BadParameter("--gamma, --step, --beta, --items, --vector and --cache need a value each")
        top = self.top or (top_k(n_heads),)
        return EvaluationOptions(
            methods=self.methods,
            grid=Grid(
                gammas=self.gamma,
                heads=top,
                betas=self.beta,
                amplify_gammas=self.step,
                items=self.items[1:],
                seeds=self.random,
                vector_gammas=self.vector,
                cache_gammas=self.cache,
                step_heads=self.step_heads,
            ),
            source=self.heads_from,
            subset=self.part,
            users=self.users,
            queries=self.queries,
            items=self.items[0],
            chosen_by=self.chosen_by,
            profile_tokens=score.profile_tokens or EvaluationOptions.profile_tokens,
            n_ctx=model.ctx_size,
            n_threads=model.threads,
            n_predict=self.n_predict,
            answers=self.answers,
            samples=self.samples,
            clusters=self.clusters,
            sampling=Sampling(temp=self.temp, seed=1),
            scoring=score.scoring(model, seed=seed),
        )


SHARED = (ModelOptions, ChatOptions, ScoreOptions)


def _with_variable(name: str, hint: Any) -> Any:
    """Let an option also be set by an environment variable."""
    type_, option = hint.__origin__, copy.copy(hint.__metadata__[0])
    option.envvar, option.show_envvar = [f"DPS_LOCAL_{name.upper()}", *(option.envvar or ())], False
    return Annotated[type_, option]


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its options as dataclasses: each becomes one option a field."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)}
    parameters = []
    for parameter in signature.parameters.values():
        members = _options_of(groups[parameter.name]) if parameter.name in groups else [parameter]
        parameters += [m.replace(kind=inspect.Parameter.KEYWORD_ONLY) for m in members]
    parameters.sort(key=_panel)
    shared = {f.name for group in groups.values() if group in SHARED for f in fields(group)}

    @functools.wraps(command)
    def wrapper(**arguments: Any) -> None:
        for name, value in arguments.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise typer.BadParameter(f"--{name.replace('_', '-')} takes a finite number, not {value}")
        for name, group in groups.items():
            arguments[name] = group(**{f.name: arguments.pop(f.name) for f in fields(group)})
        command(**arguments)

    wrapper.shared = shared  # type: ignore[attr-defined]  # settings of all commands that take them
    wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _panel(parameter: inspect.Parameter) -> int:
    """Return where a parameter's panel stands in --help: 0 is above all panels."""
    (option,) = getattr(parameter.annotation, "__metadata__", (None,))
    return PANELS.index(option.rich_help_panel) + 1 if option and option.rich_help_panel else 0


def _options_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    if group in SHARED:
        hints = {name: _with_variable(name, hint) for name, hint in hints.items()}
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(group)
    ]
