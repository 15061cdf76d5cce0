"""Many users: groups of them by what they write, and the heads that matter in each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dps_local.engine.embedding import Embedder, Vector
from dps_local.engine.model import Model, head_mask
from dps_local.errors import ProfileError
from dps_local.maps.calibration import NO_STEERING, Calibration, Candidate
from dps_local.maps.cluster_map import GRIDS, ClusterMap, cluster_weights, group, n_clusters
from dps_local.maps.model_map import bound_to
from dps_local.maps.scored_heads import Scores, grid
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.calibrate import GAMMAS, by_user, calibrate
from dps_local.scoring.example import Example, make_example
from dps_local.scoring.head_effects import HeadEffects
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.intervals import FEWEST
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import grids_of
from dps_local.scoring.statistics import choose, mean_stderr
from dps_local.scoring.successive_halving import SuccessiveHalving
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering
from dps_local.system.progress import Notice, Progress

ITEMS = 2  # that are scored of each user, at least; and tried of each who is held out
HELD_OUT = 12  # users, at most half of them


def embed(embedder: Embedder, prompter: Prompter, before: int | None = None) -> Vector:
    """Return a profile's vector: of what it says about the user, and of the newest things they wrote."""
    return embedder(replace(prompter, budget=embedder.n_ctx).describe(before))


@dataclass(frozen=True)
class UserHistory:
    """What one of many users wrote.

    Of one who is held out, the newest ITEMS of a longer history are tried, as if written next.
    """

    prompter: Prompter
    options: ScoringOptions

    @property
    def end(self) -> int:
        """How many history items are known of one who is held out."""
        own = self.prompter.profile.own_items()
        return own[-ITEMS] if len(own) >= 2 * ITEMS else len(self.prompter.profile.history)

    def scored(self, most: int) -> list[Example]:
        """Return the newest items."""
        return self._examples(self.prompter.profile.own_items(most))

    def held_out(self) -> list[Example]:
        """Return what is tried; nothing of a short history."""
        return self._examples([i for i in self.prompter.profile.own_items() if i >= self.end])

    def _examples(self, items: Sequence[int]) -> list[Example]:
        return [e for i in items if (e := make_example(self.prompter, i, self.options))]


def score_clusters(
    model: Model,
    prompters: Sequence[Prompter],
    wanted: int | Literal["auto"],
    options: ScoringOptions,
    embedder: Embedder,
    *,
    power: float = 1.0,
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> ClusterMap:
    """Group users by what they write, score the heads in each group, and calibrate how strongly to steer by them.

    Users who calibrate have no part in groups and scores, and count once each; where fewer than FEWEST can be held
    out, there is no calibration. options.examples: of each cluster, at least; more where that is less than ITEMS of
    each of its users. power: of the weights; above 1, the best heads stand out more. Raises ProfileError when no user
    wrote anything.
    """
    everyone = [UserHistory(p, options) for p in prompters if p.profile.own_items()]
    if not everyone:
        raise ProfileError(
            "none of the profiles has a history of the user's own words: heads are scored on what users wrote"
        )
    users, held_out = _split(everyone, options.seed)
    if notice and not held_out:
        notice(
            f"what steering is worth is measured on users who give no heads, and takes {2 * FEWEST} with {2 * ITEMS} "
            "history items each: it stays off until --gamma says how strong it is"
        )
    cluster_map = _cluster_map(model, users, wanted, options, embedder, power, progress, notice)
    calibration = _calibrate(model, cluster_map, held_out, embedder, options) if held_out else None
    gamma = calibration.best.gamma if calibration and calibration.helps else 0.0
    return replace(cluster_map, gamma=gamma, calibration=calibration)


def _cluster_map(
    model: Model,
    users: Sequence[UserHistory],
    wanted: int | Literal["auto"],
    options: ScoringOptions,
    embedder: Embedder,
    power: float,
    progress: Progress | None,
    notice: Notice | None,
) -> ClusterMap:
    """Group users, and score the heads in each group; nothing is calibrated yet."""
    vectors = np.array([embed(embedder, user.prompter) for user in users])
    center, centroids, labels = group(vectors, n_clusters(wanted, len(users)), options.seed)
    members = [[u for u, label in zip(users, labels, strict=True) if label == k] for k in range(len(centroids))]
    if notice:
        notice(f"clusters of {', '.join(str(len(m)) for m in members)} users")
    halvings = _halvings(model, members, options, progress)
    effects = [halving.run() for halving in halvings]
    scores = [_scores(model, h, e, options, power) for h, e in zip(halvings, effects, strict=True)]
    grids: dict[str, Any] = {name: np.array([s[name] for s in scores]) for name in GRIDS}
    return ClusterMap(
        **bound_to(model),
        embedder=embedder.model.fingerprint,
        embedder_metadata=embedder.model.identity.metadata,
        embedder_tokens=embedder.n_ctx,
        scope=options.scope,
        ranking=options.ranking,
        seed=options.seed,
        users=tuple(len(m) for m in members),
        examples=tuple(len(halving.examples) for halving in halvings),
        evaluations=sum(halving.evaluations for halving in halvings),
        center=center,
        centroids=centroids,
        **grids,
        null_control=max(e.null for e in effects),
        gamma=0.0,
    )


def _split(users: Sequence[UserHistory], seed: int) -> tuple[list[UserHistory], list[UserHistory]]:
    """Return the users who are scored, and those who are held out, drawn at random from those with enough items."""
    able = [i for i, user in enumerate(users) if user.end < len(user.prompter.profile.history)]
    n = min(HELD_OUT, len(able) // 2)
    drawn = set(np.random.default_rng(seed).permutation(able)[: n if n >= FEWEST else 0].tolist())
    return [u for i, u in enumerate(users) if i not in drawn], [users[i] for i in sorted(drawn)]


def _halvings(
    model: Model, members: Sequence[Sequence[UserHistory]], options: ScoringOptions, progress: Progress | None
) -> list[SuccessiveHalving]:
    """Return what is to be measured in each cluster, with one progress for all."""
    halvings: list[SuccessiveHalving] = []

    def advanced(_: int, __: int) -> None:
        if progress:
            progress(sum(h.done for h in halvings), sum(h.total for h in halvings))

    for users in members:
        each = max(ITEMS, math.ceil(options.examples / len(users)))
        by_user = [user.scored(each) for user in users]
        examples = [example for scored in by_user for example in scored]
        if not examples:
            raise ProfileError("the users of a cluster wrote nothing that has a token: raise examples above 0")
        halvings.append(SuccessiveHalving(model, examples, options, progress=advanced))
        for user, scored in zip(users, by_user, strict=True):
            user.prompter.profile.cached.note(halvings[-1].files(scored))
    return halvings


def _scores(
    model: Model, halving: SuccessiveHalving, effects: HeadEffects, options: ScoringOptions, power: float
) -> dict[str, Scores]:
    """Return a cluster's PCS and gain with their standard errors, and its weights, by the ranking of the options."""
    values = effects.ranked_by(options.ranking)
    weights = cluster_weights(mean_stderr(values)[0], choose(values, halving.k), power)
    grids = grids_of(model, effects, options.ablation_scale) | {"weights": grid(model.n_heads, weights)}
    return {name: grids[name] for name in GRIDS}


def _calibrate(
    model: Model, cluster_map: ClusterMap, users: Sequence[UserHistory], embedder: Embedder, options: ScoringOptions
) -> Calibration | None:
    """Choose γ on what users wrote who were held out, each steered by soft routing, as one who is not scored.

    None when fewer than two of them wrote anything that has a token.
    """
    texts = [(i, e.longer) for i, user in enumerate(users) for e in user.held_out()]
    if len({i for i, _ in texts}) < 2:
        return None
    tried = [NO_STEERING, *(Candidate("contrast", None, gamma) for gamma in GAMMAS)]
    plain = head_mask(model, [])
    routed = [cluster_map.scales(cluster_map.route(embed(embedder, user.prompter, user.end))) for user in users]
    steerings = [
        [Steering(scales if c.gamma else plain, Gamma(c.gamma), 0.0, options.scope) for c in tried] for scales in routed
    ]
    held_out_losses = HeldOutLosses(model, [text for _, text in texts], options.scope, options.n_threads)
    try:
        losses = [held_out_losses.of(text, steerings[i]) for i, text in texts]
    finally:
        held_out_losses.close()
    # nothing is said of what more messages may tell: what lacks is more users
    return replace(calibrate(by_user(np.array(losses), [i for i, _ in texts]), tried), more_messages=None)
