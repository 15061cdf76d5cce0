"""`dps-local score`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from dps_local.assistant import Settings
from dps_local.cli.head_map_view import describe, show_map
from dps_local.cli.loading import load_model, make_prompter, score_heads
from dps_local.cli.options import (
    EmbeddingOption,
    JsonOption,
    ModelOptions,
    ProfileOption,
    ScoreOptions,
    SeedOption,
    cluster_option,
    expert_option,
    option_groups,
)
from dps_local.cli.terminal import terminal
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import Profile, load_profiles
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.clusters import score_clusters
from dps_local.scoring.learned_map import LearnedMap
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.routing import make_embedder
from dps_local.system import memory


@option_groups
def score(
    score: ScoreOptions,
    model: ModelOptions,
    profile: Annotated[str | None, ProfileOption] = None,
    profiles: Annotated[
        Path | None, cluster_option(file_okay=False, help="A folder of profiles: make one map of clusters of users.")
    ] = None,
    clusters: Annotated[
        str, cluster_option(metavar="N|auto", help="How many clusters; auto: about one per 100 users.")
    ] = "auto",
    power: Annotated[float, cluster_option(min=0.01, help="Of clusters' weights; above 1 the best stand out.")] = 1.0,
    embedding_model: EmbeddingOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the map here.")] = None,
    parallel: Annotated[int | None, expert_option(min=1, help="Heads at a time. Default: what fits.")] = None,
    seed: SeedOption = ScoringOptions.seed,
    as_json: JsonOption = False,
) -> None:
    """Score the attention heads on a profile's history, choose the best, and measure what steering is worth.

    The head map is cached, so that chat and generate start at once with the same options. With --profiles, users are
    grouped by what they write, and the map holds each group's heads: a new user is routed with no scoring at all.
    """
    if (profile is None) == (profiles is None):
        raise typer.BadParameter("give either --profile or --profiles")
    options, settings = score.scoring(model, parallel, seed), score.settings(model)
    if profile:
        head_map = _score_profile(profile, model, settings, options, output)
        show_map(head_map, as_json, top=10, picture=False)
        return
    assert profiles
    if output is None:
        raise typer.BadParameter("--profiles needs --output: where to write the cluster map")
    settings = replace(settings, embedding_model=embedding_model)
    cluster_map = _score_clusters(profiles, model, settings, options, _n_clusters(clusters), power)
    cluster_map.save(output)
    terminal.notice(f"cluster map: {output}; peak memory {memory.peak() / 1e9:.1f} GB")
    if as_json:
        terminal.json(cluster_map.as_json())
    else:
        _show_clusters(cluster_map)


def _score_profile(
    profile: str, model: ModelOptions, settings: Settings, options: ScoringOptions, output: Path | None
) -> HeadMap:
    user = Profile.load(profile)  # first, as its mistakes are found at once
    own = CachedMap(make_prompter(load_model(model), user, settings, terminal.notice), options)
    if news := own.prompter.not_shown():
        terminal.notice(news)
    head_map = score_heads(own)
    if output:
        head_map.save(output)
    if LearnedMap(own).of_another_profile:
        terminal.notice("chats go on with the head map that `dps-local learn` chose")
    terminal.notice(f"head map: {output or own.path}; peak memory {memory.peak() / 1e9:.1f} GB")
    return head_map


def _n_clusters(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter("--clusters takes a number above 0, or auto")
    return int(text)


def _score_clusters(
    folder: Path,
    model: ModelOptions,
    settings: Settings,
    options: ScoringOptions,
    wanted: int | Literal["auto"],
    power: float,
) -> ClusterMap:
    loaded = load_model(model)
    loaded.trained_ctx(settings.n_ctx, terminal.notice)
    users = load_profiles(folder, terminal.notice)
    with (
        terminal.progress("scoring heads", preparation="reading the profiles") as progress,
        closing(make_embedder(loaded, settings.embedding_model, n_threads=settings.n_threads)) as embedder,
    ):
        prompters = [make_prompter(loaded, user, settings) for user in users]
        return score_clusters(
            loaded, prompters, wanted, options, embedder, power=power, progress=progress, notice=terminal.notice
        )


def _show_clusters(cluster_map: ClusterMap) -> None:
    rows = [
        [str(i + 1), str(users), str(cluster_map.examples[i]), describe(cluster_map.selected(i))]
        for i, users in enumerate(cluster_map.users)
    ]
    terminal.table(["cluster", "users", "examples", "heads"], rows)
    if cluster_map.calibration:
        terminal.show(cluster_map.calibration.sentence("what users wrote who were held out"))
