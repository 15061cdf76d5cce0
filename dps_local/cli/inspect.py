"""`dps-local inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from dps_local.assistant import Settings
from dps_local.cli.head_map_view import show_map, show_overlap
from dps_local.cli.loading import load_model, make_prompter
from dps_local.cli.options import (
    ContextOption,
    JsonOption,
    ModelOption,
    ModelOptions,
    ProfileOption,
    ScoreOptions,
    SeedOption,
    option_groups,
)
from dps_local.cli.terminal import terminal
from dps_local.drawing.head_map import write_head_map_html, write_head_map_png
from dps_local.engine import self_test
from dps_local.errors import HeadMapError
from dps_local.maps.baking import load_map
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.maps.scored_heads import ScoredHeads
from dps_local.prompting.profile import Profile
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.options import ScoringOptions


@option_groups
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
        show_overlap(_named_maps(map_files), png, html, as_json)
        return
    if map_files:
        maps = _maps_in(map_files[0])
    else:
        assert profile
        maps = {profile: _cached_map(profile, ModelOptions(model, ctx_size, offline=True), score, seed)}
    if len(maps) > 1:
        show_overlap(maps, png, html, as_json)
        return
    (head_map,) = maps.values()
    for path, write in ((png, write_head_map_png), (html, write_head_map_html)):
        if path:
            write(head_map, path)
            terminal.notice(f"wrote {path}")
    show_map(head_map, as_json, top, picture=True)


def _cached_map(profile: str, options: ModelOptions, score: ScoreOptions, seed: int) -> HeadMap:
    """Return the map that the profile was scored to with these options."""
    user = Profile.load(profile)
    prompter = make_prompter(load_model(options), user, score.settings(options))
    head_map = CachedMap(prompter, score.scoring(options, seed=seed)).load()
    if head_map is None:
        raise HeadMapError(f"{profile!r} is not scored yet with these options: run `dps-local score -p {profile}`")
    return head_map


def _maps_in(file: Path) -> Mapping[str, ScoredHeads]:
    """Return the map of a file by its name; of a cluster map, those of its clusters."""
    head_map = load_map(file)
    return head_map.clusters() if isinstance(head_map, ClusterMap) else {file.name: head_map}


def _named_maps(files: list[Path]) -> dict[str, HeadMap]:
    """Return the maps by the names of their files, or by their paths where names are not unique."""
    if len(set(files)) < len(files):
        raise typer.BadParameter("a head map is given twice")
    names = [path.name.removesuffix(".gguf").removesuffix(".dps") for path in files]
    unique = len(set(names)) == len(names)
    return {name if unique else str(path): HeadMap.load(path) for name, path in zip(names, files, strict=True)}
