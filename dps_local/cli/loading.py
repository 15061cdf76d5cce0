"""What commands load before they begin: the model, the profile, the head map, and the assistant that they make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from dps_local.assistant import Assistant, Settings
from dps_local.cli.head_map_view import describe
from dps_local.cli.options import ModelOptions, ScoreOptions
from dps_local.cli.remedies import explained
from dps_local.cli.terminal import terminal
from dps_local.engine import registry, rpc, self_test
from dps_local.engine.model import Model
from dps_local.engine.rpc import Endpoint
from dps_local.errors import RegistryError, SettingsError
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.map_choice import choose_map
from dps_local.system.progress import Notice


def load_assistant(
    model: ModelOptions, profile: str | None, map_file: Path | None, settings: Settings, score: ScoreOptions
) -> Assistant:
    """Load all that a chat needs, and say what steers it.

    Heads that are not scored are steered by what others' texts, and a few of the person's own, tell of them.
    """
    user = Profile.load(profile) if profile else None  # first, as its mistakes are found at once
    loaded = load_model(model)
    prompter = make_prompter(loaded, user, settings) if user else None
    own = CachedMap.of(prompter, score.scoring(model)) if prompter else None
    heads = None
    if settings.mode != "cad":  # which steers by no heads
        heads = choose_map(loaded, own, map_file, begin=begin_with, notice=terminal.notice)
    assistant = Assistant(loaded, prompter, heads, settings, notice=terminal.notice)
    _say_what_steers(assistant)
    return assistant


def make_prompter(model: Model, user: Profile, settings: Settings, notice: Notice | None = None) -> Prompter:
    return Prompter.of(model, user, n_ctx=settings.n_ctx, profile_tokens=settings.profile_tokens, notice=notice)


def load_model(options: ModelOptions) -> Model:
    """Load the model; before the first one after an install, a child process finds out whether that can go well."""
    path = _model_file(options.model, options.offline)
    self_test.check(terminal.notice, offload=options.n_gpu_layers != 0)
    if options.rpc:
        _say_what_leaves(options.rpc, options.offline)
        rpc.end_with(terminal.error)
    return Model(path, options.n_gpu_layers, rpc=[*map(str, options.rpc)])


def _say_what_leaves(servers: Sequence[Endpoint], offline: bool) -> None:
    if not (away := ", ".join(str(server) for server in servers if not server.is_here)):
        return
    if offline:
        raise SettingsError(f"--offline refuses {away}: RPC servers on this machine alone are allowed with it")
    terminal.notice(
        f"{away} gets the model's weights, and numbers from which your text, profile and chat can be restored; nothing "
        "is encrypted on the way"
    )


def _model_file(name: str | None, offline: bool) -> Path:
    """Return the model's file; a model that is not here is downloaded when the person at the terminal says so."""
    name = name or registry.default_name()
    try:
        return registry.resolve(name)
    except RegistryError as exc:
        if offline or not terminal.interactive or name not in registry.load():
            raise
        terminal.notice(explained(exc))
        if not terminal.confirm("Download it now?", default=True):
            raise typer.Abort from exc
        return download(name, offline)


def download(name: str, offline: bool) -> Path:
    """Download a model of the registry, with a bar, and return its path."""
    with terminal.progress(f"downloading {name}", unit="bytes") as progress:
        return registry.pull(name, offline=offline, progress=progress)


def begin_with(own: CachedMap) -> HeadMap:
    """Return the profile's head map, or the one that a chat begins with, which takes seconds."""
    with terminal.progress("reading your texts", preparation="reading the profile") as progress:
        return own.load_or_begin(progress, terminal.notice)


def score_heads(own: CachedMap) -> HeadMap:
    """Return the profile's head map; scoring shows its progress, and stops cleanly at Ctrl-C."""
    with terminal.progress("scoring heads", preparation="reading the profile") as progress:
        return own.load_or_score(progress, terminal.notice)


def _say_what_steers(assistant: Assistant) -> None:
    steering, heads, name = assistant.session.steering, assistant.heads, assistant.model.name
    if steering is None and heads is None:
        terminal.notice(f"{name}: nothing to steer by (no --profile with texts of your own, no --map)")
    if steering is None or steering.gamma.off:
        return
    if steering.mode == "cad":
        cause = "by what the profile changes"
    elif steering.mode == "amplify":
        cause = f"with {len(steering.heads)} amplified heads"
    else:  # a person's own map has them best first
        cause = f"with {describe(heads.selected if isinstance(heads, HeadMap) else steering.heads)}"
    terminal.notice(f"{name}: steering {cause}, γ = {steering.gamma}")
