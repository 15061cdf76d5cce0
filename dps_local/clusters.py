"""Many users: groups of them by what they write, and the heads that matter in each group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from dps_local.calibration import GAMMAS, PLAIN, Calibration, Candidate, calibrate
from dps_local.cluster_map import GRIDS, ClusterMap, cluster_weights, group, n_clusters
from dps_local.embedding import Embedder, Vector
from dps_local.errors import ProfileError
from dps_local.evidence import Evidence, choose, mean_stderr
from dps_local.head_map import Scores
from dps_local.measurement import Example, Measurement, Notice, Progress, ScoringOptions, make_example
from dps_local.model import Model, head_mask
from dps_local.prompt import Prompter
from dps_local.scoring import grid, grids_of
from dps_local.trial import Trial

ITEMS = 2  # of each user that are held out; and at least as many are scored
HELD_OUT = 24  # items in all


def embed(embedder: Embedder, prompter: Prompter, before: int | None = None) -> Vector:
    """Return a profile's vector: of what it says about the user, and of the newest things they wrote."""
    return embedder(replace(prompter, budget=embedder.n_ctx).describe(before))


@dataclass(frozen=True)
class User:
    """One of many: the newest ITEMS of a longer history are held out, of the vector as well."""

    prompter: Prompter
    options: ScoringOptions

    @property
    def end(self) -> int:
        """How many history items are not held out."""
        n = len(self.prompter.profile.history)
        return n - ITEMS if n >= 2 * ITEMS else n

    def scored(self, most: int) -> list[Example]:
        """Return the newest items that are not held out."""
        return self._examples(range(max(0, self.end - most), self.end))

    def held_out(self) -> list[Example]:
        return self._examples(range(self.end, len(self.prompter.profile.history)))

    def _examples(self, items: range) -> list[Example]:
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

    options.examples: of each cluster, at least; more where that is less than ITEMS of each of its users. power: of
    the weights; above 1, the best heads stand out more. Raises ProfileError when no user has a history.
    """
    users = [User(p, options) for p in prompters if p.profile.history]
    if not users:
        raise ProfileError("none of the profiles has a history: heads are scored on what users wrote")
    vectors = np.array([embed(embedder, user.prompter, user.end) for user in users])
    center, centroids, labels = group(vectors, n_clusters(wanted, len(users)), options.seed)
    members = [[u for u, label in zip(users, labels, strict=True) if label == k] for k in range(len(centroids))]
    if notice:
        notice(f"clusters of {', '.join(str(len(m)) for m in members)} users")
    measurements = _measurements(model, members, options, progress)
    found = [(m, m.evidence()) for m in measurements]
    scores = [_scores(model, m, evidence, options, power) for m, evidence in found]
    grids: dict[str, Any] = {name: np.array([s[name] for s in scores]) for name in GRIDS}
    cluster_map = ClusterMap(
        model=model.name,
        architecture=model.architecture,
        **asdict(model.identity),
        embedder=embedder.model.fingerprint,
        embedder_metadata=embedder.model.identity.metadata,
        embedder_tokens=embedder.n_ctx,
        scope=options.scope,
        ranking=options.ranking,
        seed=options.seed,
        users=tuple(len(m) for m in members),
        examples=tuple(len(m.examples) for m in measurements),
        evaluations=sum(m.evaluations for m in measurements),
        center=center,
        centroids=centroids,
        **grids,
        null_control=max(evidence.null for _, evidence in found),
        gamma=0.0,
    )
    calibration = _calibrate(model, cluster_map, users, vectors, options)
    gamma = calibration.best.gamma if calibration and calibration.helps else 0.0
    return replace(cluster_map, gamma=gamma, calibration=calibration)


def _measurements(
    model: Model, members: Sequence[Sequence[User]], options: ScoringOptions, progress: Progress | None
) -> list[Measurement]:
    """Return what is to be measured in each cluster, with one progress for all."""
    made: list[Measurement] = []

    def advanced(_: int, __: int) -> None:
        if progress:
            progress(sum(m.done for m in made), sum(m.total for m in made))

    for users in members:
        each = max(ITEMS, math.ceil(options.examples / len(users)))
        examples = [example for user in users for example in user.scored(each)]
        if not examples:
            raise ProfileError("the users of a cluster wrote nothing that has a token: raise examples above 0")
        made.append(Measurement(model, examples, options, progress=advanced))
    return made


def _scores(
    model: Model, measurement: Measurement, evidence: Evidence, options: ScoringOptions, power: float
) -> dict[str, Scores]:
    """Return a cluster's PCS and gain with their standard errors, and its weights, by the ranking of the options."""
    values = evidence.ranked_by(options.ranking)
    weights = cluster_weights(mean_stderr(values)[0], choose(values, measurement.k), power)
    grids = grids_of(model, evidence, options.probe) | {"weights": grid(model, weights)}
    return {name: grids[name] for name in GRIDS}


def _calibrate(
    model: Model, cluster_map: ClusterMap, users: Sequence[User], vectors: Vector, options: ScoringOptions
) -> Calibration | None:
    """Choose γ on what was held out of users, each steered by soft routing; None when nothing was held out."""
    texts = [(e.text, v) for user, v in zip(users, vectors, strict=True) for e in user.held_out()]
    if len(texts) < 2:
        return None
    chosen = np.random.default_rng(options.seed).permutation(len(texts))[:HELD_OUT]
    tried = [PLAIN, *(Candidate("contrast", None, gamma) for gamma in GAMMAS)]
    plain = head_mask(model, [])
    trial = Trial(model, [texts[i][0] for i in chosen], options.scope, options.n_threads)
    try:
        losses = []
        for i in chosen:
            text, vector = texts[i]
            scales = cluster_map.scales(cluster_map.route(vector))
            losses.append(trial.losses(text, [c.mix for c in tried], [plain, *[scales] * len(GAMMAS)]))
        return calibrate(np.array(losses), tried)
    finally:
        trial.close()
