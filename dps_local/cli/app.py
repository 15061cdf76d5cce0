"""The command line: reads options, calls the library, prints. Nothing else happens here."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

import dps_local
from dps_local.assistant import Assistant, Settings, describe
from dps_local.bench.decoding import amplification, bench_decoding
from dps_local.bench.scoring import bench_scoring as time_scoring
from dps_local.chat.explanation import Explanation, steering_of
from dps_local.chat.explanation import explain as explain_answer
from dps_local.chat.session import Session
from dps_local.cli.conversation import Chat
from dps_local.cli.options import (
    BetaOption,
    ChatOptions,
    ContextOption,
    EmbeddingOption,
    EvalOptions,
    GammaOption,
    JsonOption,
    MapOption,
    ModelOption,
    ModelOptions,
    OfflineOption,
    ProfileOption,
    ScoreOptions,
    SeedOption,
    TempOption,
    expand,
)
from dps_local.cli.terminal import Terminal, argument, interruptible, open_streams
from dps_local.drawing.explanation_drawing import explained_answer, write_explanation_html
from dps_local.drawing.head_map_drawing import findings, heat_map, ranked_table, write_html, write_png
from dps_local.drawing.overlap_drawing import overlap_table, write_overlap_html, write_overlap_png
from dps_local.engine import native, registry, self_test
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampling
from dps_local.errors import DpsError, HeadMapError, RegistryError, SelfTestError
from dps_local.maps.baking import bake as bake_map
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.maps.overlap import overlap
from dps_local.prompting.profile import load_profile, load_profiles
from dps_local.prompting.prompt import request_of
from dps_local.scoring.ablation import ScoringOptions
from dps_local.scoring.forked_sequences import MAX_TARGET
from dps_local.steering.mixing import Gamma
from dps_local.system import memory

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Private, on-device personalization for llama.cpp. Finds the attention heads that carry how you write, "
    "and steers a local model with them (Differential Preference Steering, arXiv 2604.22345).",
)
models_app = typer.Typer(no_args_is_help=True, help="List, download and check models.")
app.add_typer(models_app, name="models")
bench_app = typer.Typer(no_args_is_help=True, help="Time what dps-local does against what llama.cpp does by itself.")
app.add_typer(bench_app, name="bench")
terminal = Terminal()
WAYS = {"eager": "contrast, eager", "late": "contrast, late", "amplify": "amplified heads"}


def _assistant(model: ModelOptions, profile: str | None, settings: Settings) -> Assistant:
    """Read the profile and load the model; the profile first, as its mistakes are found at once."""
    person = load_profile(profile) if profile else None
    return Assistant(_model(model), person, settings, terminal.notice)


def _model(options: ModelOptions) -> Model:
    """Load the model; before the first one after an install, a child process finds out whether that can go well."""
    path = _model_file(options.model, options.offline)
    self_test.check(terminal.notice, offload=options.n_gpu_layers != 0)
    return Model(path, options.n_gpu_layers)


def _model_file(name: str | None, offline: bool) -> Path:
    """Return the model's file; a model that is not here is downloaded when the person at the terminal says so."""
    name = name or registry.default_name()
    try:
        return registry.resolve(name)
    except RegistryError as exc:
        if offline or not terminal.interactive or name not in registry.load():
            raise
        terminal.notice(str(exc))
        typer.confirm("Download it now?", default=True, abort=True, err=True)
        return _pull(name, offline)


def _pull(name: str, offline: bool) -> Path:
    with terminal.progress(f"downloading {name}", unit="bytes") as progress:
        return registry.pull(name, offline=offline, progress=progress)


def _scored(assistant: Assistant) -> HeadMap:
    """Return the profile's head map; scoring shows its progress, and stops cleanly at Ctrl-C."""
    with terminal.progress("scoring heads", begins="reading the profile") as progress:
        return assistant.scored_map(progress)


def _map(assistant: Assistant, map_file: Path | None) -> HeadMap | ClusterMap | None:
    """Return --map, the profile's own head map, or one that is baked into the model."""
    return assistant.map(map_file, lambda: _scored(assistant))


def _session(assistant: Assistant, head_map: HeadMap | ClusterMap | None) -> Session:
    """Return a chat steered by a map; says by what."""
    session = assistant.session(head_map)
    steering = session.steering
    if steering and steering.mode == "cad" and not steering.gamma.off:
        terminal.notice(f"{assistant.model.name}: steering by what the profile changes, γ = {steering.gamma}")
    elif steering and head_map and not steering.gamma.off:
        muted = [(int(layer), int(head)) for layer, head in np.argwhere(steering.scales != 1)]
        chosen = head_map.selected if isinstance(head_map, HeadMap) else muted
        what = describe(chosen) if steering.mode == "contrast" else f"{len(muted)} amplified heads"
        terminal.notice(f"{assistant.model.name}: steering with {what}, γ = {steering.gamma}")
    elif steering is None and head_map is None:
        terminal.notice(f"{assistant.model.name}: nothing to steer by (no --profile with history, no --map)")
    return session


@app.command()
@expand
def chat(chat: ChatOptions, score: ScoreOptions, model: ModelOptions) -> None:
    """Chat with a model that knows how you write.

    On first use with a profile its heads are scored, which takes minutes; later starts are immediate.
    Without a terminal, questions are read from stdin, one a line; one that fails is said, and ends the run with exit
    code 1 after the others.
    """
    assistant = _assistant(model, chat.profile, chat.settings(model, score))
    session = _session(assistant, _map(assistant, chat.map))
    if not Chat(session, terminal, chat.n_predict, chat.compare).run():
        raise typer.Exit(1)


@app.command()
@expand
def generate(
    chat: ChatOptions,
    score: ScoreOptions,
    model: ModelOptions,
    prompt: Annotated[
        str | None, typer.Argument(help="The request. Text on stdin comes before it; - or nothing: stdin alone.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how far steering moved each token, and which heads did it.")
    ] = False,
    explain_html: Annotated[
        Path | None, typer.Option("--explain-html", help="Write that as a self-contained page.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one prompt. With --json: the text, and each token's probability plain, muted and steered.

    --explain decodes the answer once more for each head, and shows what steering did to each token.
    """
    if chat.compare and as_json:
        raise typer.BadParameter("--compare and --json do not go together")
    prompt = _prompt(prompt)
    if not prompt:
        raise typer.BadParameter("the prompt is empty")
    assistant = _assistant(model, chat.profile, chat.settings(model, score))
    session = _session(assistant, _map(assistant, chat.map))
    explained = explain or explain_html is not None
    if explained:
        steering_of(session)  # says what is missing before the answer
    if as_json:
        answer = _generate_json(session, prompt, chat.n_predict)
    else:
        Chat(session, terminal, chat.n_predict, chat.compare).answer(prompt)
    explanation = _explanation(session, explain_html) if explained and session.turns else None
    if as_json:
        tokens = [asdict(token) for token in explanation.tokens] if explanation else []
        terminal.json(answer | ({"explanation": tokens} if explain else {}))
    elif explain and explanation:
        terminal.show("")
        terminal.show(explained_answer(explanation))


def _prompt(given: str | None) -> str:
    """Return what is piped in, and behind it the request of the command line."""
    asked = "" if given is None or given == "-" else argument(given)
    piped = "" if asked and sys.stdin.isatty() else sys.stdin.read()
    return "\n\n".join(text for text in (piped.strip(), asked.strip()) if text)


def _generate_json(session: Session, prompt: str, n_predict: int) -> dict[str, Any]:
    session.probs = True
    with interruptible(session.cancel):
        tokens = [asdict(token) for token in session.ask(prompt, n_predict)]
    steering, turn = session.steering, session.turns[-1] if session.turns else None
    if turn is None:
        raise KeyboardInterrupt
    gamma = None if steering is None else steering.gamma.value if not steering.gamma.entropy else str(steering.gamma)
    timings = {**asdict(turn.timings), "ttft_ms": turn.timings.ttft_ms}
    return {"text": turn.text, "gamma": gamma or 0, "stop": turn.stop, "tokens": tokens, "timings": timings}


def _explanation(session: Session, html: Path | None) -> Explanation:
    """Explain the answer of a chat; the page is written too, if it is wanted."""
    with terminal.progress("explaining") as progress:
        found = explain_answer(session, progress)
    if html:
        write_explanation_html(found, html)
        terminal.notice(f"wrote {html}")
    return found


@app.command("score")
@expand
def score_profile(
    score: ScoreOptions,
    model: ModelOptions,
    profile: Annotated[str | None, ProfileOption] = None,
    profiles: Annotated[
        Path | None, typer.Option(file_okay=False, help="A folder of profiles: make one map of clusters of users.")
    ] = None,
    clusters: Annotated[
        str, typer.Option(metavar="N|auto", help="How many clusters; auto: about one per 100 users.")
    ] = "auto",
    power: Annotated[float, typer.Option(min=0.01, help="Of clusters' weights; above 1 the best stand out.")] = 1.0,
    embedding_model: EmbeddingOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the map here.")] = None,
    parallel: Annotated[int | None, typer.Option(min=1, help="Heads at a time. Default: what fits.")] = None,
    seed: SeedOption = ScoringOptions.seed,
    as_json: JsonOption = False,
) -> None:
    """Score the attention heads on a profile's history, choose the best, and measure what steering is worth.

    The head map is cached, so that chat and generate start at once with the same options. With --profiles, users are
    grouped by what they write, and the map holds each group's heads: a new user is routed with no scoring at all.
    """
    if (profile is None) == (profiles is None):
        raise typer.BadParameter("give either --profile or --profiles")
    settings = replace(score.settings(model, parallel, seed), embedding_model=embedding_model)
    assistant = _assistant(model, profile, settings)
    if profiles:
        _score_clusters(assistant, profiles, clusters, power, output, as_json)
        return
    assistant.system()  # says how much of the profile fits
    head_map = _scored(assistant)
    if output:
        head_map.save(output)
    terminal.notice(f"head map: {output or assistant.cache_file()}; peak memory {memory.peak() / 1e9:.1f} GB")
    _show_map(head_map, as_json, top=10, picture=False)


def _score_clusters(
    assistant: Assistant, profiles: Path, clusters: str, power: float, output: Path | None, as_json: bool
) -> None:
    if clusters != "auto" and not (clusters.isdecimal() and int(clusters) > 0):
        raise typer.BadParameter("--clusters takes a number above 0, or auto")
    if output is None:
        raise typer.BadParameter("--profiles needs --output: where to write the cluster map")
    people = load_profiles(profiles, terminal.notice)
    with terminal.progress("scoring heads", begins="reading the profiles") as progress:
        found = assistant.clustered_map(people, "auto" if clusters == "auto" else int(clusters), power, progress)
    found.save(output)
    terminal.notice(f"cluster map: {output}; peak memory {memory.peak() / 1e9:.1f} GB")
    if as_json:
        terminal.json(found.as_json())
        return
    rows = [
        [str(i + 1), str(users), str(found.examples[i]), describe(found.selected(i))]
        for i, users in enumerate(found.users)
    ]
    terminal.table(["cluster", "users", "examples", "heads"], rows)
    if found.calibration:
        terminal.show(found.calibration.sentence("what users wrote who were held out"))


@app.command()
@expand
def inspect(
    score: ScoreOptions,
    map_files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MAP]...", help="A .dps.gguf, or a model with a map baked in; several show overlap."),
    ] = None,
    profile: Annotated[str | None, ProfileOption] = None,
    model: ModelOption = None,
    ctx_size: ContextOption = Settings.n_ctx,
    seed: SeedOption = ScoringOptions.seed,
    top: Annotated[int, typer.Option(min=1, help="Heads in the table.")] = 20,
    png: Annotated[Path | None, typer.Option(help="Draw the map, or the overlap, into this PNG.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a self-contained page.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a head map: which heads matter for a profile, and which are chosen. Several maps, clusters: their overlap.

    Takes files, or --profile (and --model) for a map that `score` or `chat` cached with the same options.
    """
    if bool(map_files) == (profile is not None):
        raise typer.BadParameter("give either files of head maps or --profile")
    if map_files:
        self_test.check(terminal.notice, offload=False)
    if map_files and len(map_files) > 1:
        _show_overlap(_named_maps(map_files), png, html, as_json)
        return
    if map_files:
        head_map: HeadMap | ClusterMap | None = load_map(map_files[0])
    else:
        chosen = ModelOptions(model, ctx_size, offline=True)
        head_map = _assistant(chosen, profile, score.settings(chosen, seed=seed)).cached_map()
    if head_map is None:
        raise HeadMapError(f"{profile!r} is not scored yet with these options: run `dps-local score -p {profile}`")
    if isinstance(head_map, ClusterMap):
        clusters = head_map.head_maps()
        if len(clusters) > 1:
            _show_overlap(clusters, png, html, as_json)
            return
        (head_map,) = clusters.values()
    for path, write in ((png, write_png), (html, write_html)):
        if path:
            write(head_map, path)
            terminal.notice(f"wrote {path}")
    _show_map(head_map, as_json, top, picture=True)


def _named_maps(files: list[Path]) -> dict[str, HeadMap]:
    """Return the maps by the names of their files, or by their paths where names are not unique."""
    if len(set(files)) < len(files):
        raise typer.BadParameter("a head map is given twice")
    names = [path.name.removesuffix(".gguf").removesuffix(".dps") for path in files]
    unique = len(set(names)) == len(names)
    return {name if unique else str(path): HeadMap.load(path) for name, path in zip(names, files, strict=True)}


def _show_overlap(maps: dict[str, HeadMap], png: Path | None, html: Path | None, as_json: bool) -> None:
    found = overlap(maps)
    if png:
        write_overlap_png(found, png)
        terminal.notice(f"wrote {png}")
    if html:
        write_overlap_html(maps, found, html)
        terminal.notice(f"wrote {html}")
    if as_json:
        terminal.json({"maps": [head_map.as_json() for head_map in maps.values()], "overlap": found.as_json()})
    else:
        terminal.show(overlap_table(found))


def _show_map(head_map: HeadMap, as_json: bool, top: int, picture: bool) -> None:
    if as_json:
        terminal.json(head_map.as_json())
        return
    if picture:
        terminal.show(heat_map(head_map))
        terminal.show("")
    terminal.show(ranked_table(head_map, top))
    for line in findings(head_map):
        terminal.show(line)


@app.command()
def bake(
    model: Annotated[str, typer.Argument(help="A registry name or the path of a GGUF.")],
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="The head map to put into it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The new GGUF.")],
) -> None:
    """Write a copy of a model that carries a head map in its metadata. Stock llama.cpp loads it as before."""
    source = registry.resolve(model)
    self_test.check(terminal.notice, offload=False)
    bake_map(source, map_file, output)
    terminal.notice(f"wrote {output}: chat with it by `dps-local chat -m {output}`")


@bench_app.command("scoring")
@expand
def bench_scoring(
    model: ModelOptions,
    prompt_tokens: Annotated[int, typer.Option(min=2, help="Tokens before what is scored.")] = 250,
    target_tokens: Annotated[int, typer.Option(min=1, max=MAX_TARGET, help="Tokens that are scored.")] = 25,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    parallel: Annotated[int | None, typer.Option(min=1, help="Heads at a time. Default: what fits.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the scoring of all heads against llama.cpp's prompt processing, and against one forward for each head."""
    loaded = _model(model)
    with terminal.progress("timing", unit="repeats") as progress:
        found = time_scoring(loaded, prompt_tokens, target_tokens, repeats, parallel, model.threads, progress)
    if as_json:
        terminal.json(found.as_json() | {"peak_memory": memory.peak()})
        return
    ratios, speedups = sorted(found.ratios()), sorted(found.speedups())
    rows = [
        [
            "scored tokens a second",
            f"{found.scored_tokens_per_s():.0f}",
            f"{found.heads} heads, {found.heads_at_a_time} at a time",
        ],
        [
            "prompt tokens a second",
            f"{found.prompt_tokens_per_s():.0f}",
            "llama.cpp itself, with logits at every position",
        ],
        ["ratio", f"{median(ratios):.2f}", f"{ratios[0]:.2f} to {ratios[-1]:.2f} in {repeats} repeats"],
        ["times faster than brute force", f"{median(speedups):.1f}", f"{speedups[0]:.1f} to {speedups[-1]:.1f}"],
        ["… without the prompt's logits", f"{median(found.lean_speedups()):.1f}", "than a leaner brute force"],
        ["peak memory", f"{memory.peak() / 1e9:.2f} GB", ""],
    ]
    terminal.table([found.model, "", ""], rows)


@bench_app.command("decode")
@expand
def bench_decode(
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
    assistant = _assistant(model, profile, settings)
    head_map = _map(assistant, map)
    session, amplify = _session(assistant, head_map), amplification(assistant.model, head_map)
    requests = [request_of(item) for item in assistant.profile.history] if assistant.profile else []
    with terminal.progress("timing", unit="prompts") as progress:
        found = bench_decoding(session, amplify, requests[-prompts:], n_predict, sampling, progress)
    if amplify is None:
        terminal.notice("the head map has no weights to amplify heads by: amplification is not timed")
    if as_json:
        terminal.json(found.as_json() | {"beta": beta, "temp": temp, "peak_memory": memory.peak()})
        return
    said = found.as_json()
    rows = [["llama.cpp alone", f"{median(found.ms['plain']):.1f} ms a token", "1"]]
    for way, name in WAYS.items():
        if way not in found.ms:
            continue
        ratios = sorted(found.ratios(way))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append([name, f"{median(found.ms[way]):.1f} ms a token", spread])
    rows += [
        ["steps with several plausible tokens", f"{said['uncertain_share']:.0%}", ""],
        ["tokens equal to the eager engine's", f"{said['same_tokens']:.2%}", f"of {found.compared}"],
        ["time to the first token", f"{said['cold_ttft_ms']:.0f} ms", f"{said['warm_ttft_ms']:.0f} ms from the cache"],
        ["peak memory", f"{memory.peak() / 1e9:.2f} GB", ""],
    ]
    terminal.table([found.model, "", f"by llama.cpp, {said['prompts']} prompts"], rows)


@app.command("eval")
@expand
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
    from dps_local.evaluation.dataset import load as load_dataset
    from dps_local.evaluation.evaluation import Evaluation
    from dps_local.evaluation.report_drawing import summary_table, write_report

    dataset = load_dataset(data)
    if dataset.dropped:
        terminal.notice(f"{dataset.dropped} profile items are left out: they hold the answer to a query")
    loaded = _model(model)
    options = evaluation.settings(model, score, seed, len(loaded.heads()))
    with terminal.progress("evaluating") as progress:
        found = Evaluation(loaded, dataset.users, options, out, progress)
        for line in found.news():
            terminal.notice(line)
        found.run()
    rows = compare(found.records())
    write_report(out, rows, found.maps(), options.about(loaded))
    terminal.notice(f"wrote {out / 'report.md'} and {out / 'report.html'}")
    if as_json:
        terminal.json({"rows": [row.as_json() for row in rows]})
    else:
        terminal.show(summary_table(rows))


@models_app.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """List the models that can be downloaded by name."""
    entries = registry.load().values()
    if as_json:
        terminal.json({"models": [asdict(e) | {"downloaded": registry.is_downloaded(e.name)} for e in entries]})
        return
    columns = ["name", "size", "here", "licence", "good for"]
    terminal.table(columns, [_model_row(e) for e in entries])


def _model_row(entry: registry.Entry) -> list[str]:
    name = f"{entry.name} (default)" if entry.default else entry.name
    size = f"{entry.size / 1e9:.2f} GB" if entry.size else "?"
    return [name, size, "✓" if registry.is_downloaded(entry.name) else "", entry.licence, entry.good_for]


NameArgument = Annotated[str, typer.Argument(help="A name from `dps-local models list`.")]


@models_app.command("pull")
def models_pull(
    name: Annotated[str | None, typer.Argument(help="Default: the default model.")] = None,
    offline: OfflineOption = False,
) -> None:
    """Download a model and check it; an interrupted download goes on where it stopped."""
    terminal.write(f"{_pull(name or registry.default_name(), offline)}\n")


@models_app.command("path")
def models_path(name: NameArgument) -> None:
    """Print where a downloaded model lies."""
    terminal.write(f"{registry.path(name)}\n")


@models_app.command("verify")
def models_verify(name: NameArgument) -> None:
    """Check a downloaded model's SHA-256 anew."""
    registry.verify(name)
    terminal.notice(f"{name} is as it should be")


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Show what is installed, and test whether it works here: the patched library, CPU features, devices, folders."""
    tested = self_test.run()
    found: dict[str, Any] = {"libllama": None, "llama_cpp_python": None, "backends": [], "features": {}} | tested.engine
    report = {
        "dps_local": dps_local.__version__,
        "libllama": found["libllama"],
        "patch": native.PATCH_VERSION,
        "llama_cpp_python": found["llama_cpp_python"],
        "backends": found["backends"],
        "features": found["features"],
        "python": sys.version.split()[0],
        "models": str(registry.cache_dir()),
        "default_model": registry.default_name(),
        "default_model_downloaded": registry.is_downloaded(registry.default_name()),
        "self_test": tested.failure or "ok",
    }
    if as_json:
        terminal.json(report)
    else:
        devices = ", ".join(f"{d['name']}: {d['description']}" for d in found["backends"])
        shown = report | {"backends": devices, "features": " ".join(found["features"])}
        terminal.table(["", ""], [[key, str(value)] for key, value in shown.items()])
    if tested.failure:
        raise SelfTestError(tested.failure)


def _version(show: bool) -> None:
    if show:
        terminal.write(f"dps-local {dps_local.__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the program: an error is one line on stderr and exit code 1, a usage error 2, Ctrl-C 130."""
    open_streams()
    try:
        app(prog_name="dps-local")
    except DpsError as exc:
        terminal.error(str(exc))
    except KeyboardInterrupt:
        terminal.notice("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, MemoryError) as exc:
        terminal.error(f"{type(exc).__name__}: {exc}")
    sys.exit(1)
