"""`Heads`: the head maps of users, from what they wrote themselves, or from what other users of the task wrote."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dps_local.engine.embedding import Embedder, Vector
from dps_local.errors import DpsError
from dps_local.evaluation.arms import CLUSTERED, HEADLESS, Arm
from dps_local.evaluation.dataset import User
from dps_local.evaluation.evaluation_options import Half, Source
from dps_local.evaluation.task_prompt import TaskPrompter
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.profile import HistoryItem
from dps_local.scoring.ablation import Example, Progress, ScoringOptions, make_example
from dps_local.scoring.clusters import embed, score_clusters
from dps_local.scoring.scoring import Scoring, Split, score
from dps_local.scoring.statistics import Ranking

FEWEST_ITEMS = 8  # of a user's own; with fewer, heads come from other users
OTHER: dict[Half, Half] = {"choose": "confirm", "confirm": "choose"}
Map = TypeVar("Map", HeadMap, ClusterMap)


def halves(users: Sequence[str], seed: int) -> dict[str, Half]:
    """Split users into two halves at random, the same ones for the same names: settings are chosen on one of them."""
    return {user: "confirm" if i % 2 else "choose" for i, user in enumerate(shuffled(users, seed))}


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """Return names in an order that depends on nothing but them."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


@dataclass
class Heads:
    """Scores heads when they are asked for, and keeps the maps in a folder.

    users, prompters: all of a task, by name. Where heads come from other users, these are of the other half, so
    that none of their texts is from the user's own queries. clusters: how many to make of them.
    """

    users: Mapping[str, User]
    prompters: Mapping[str, TaskPrompter]
    options: ScoringOptions
    source: Source
    clusters: int
    folder: Path
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self.half = halves(list(self.prompters), self.options.seed)
        self._made: dict[Path, HeadMap | ClusterMap] = {}
        self._vectors: dict[str, Vector] = {}
        self._other_half: dict[Half, list[TaskPrompter]] = {}

    def own(self, user: str) -> bool:
        """Whether a user's heads come from their own history."""
        return self.source == "user" and len(self.prompters[user].items) >= FEWEST_ITEMS

    def _whose(self, user: str) -> str:
        """Return a name for those whose texts a user's heads come from: the user, or the other half of the users."""
        return user if self.own(user) else f"part {OTHER[self.half[user]]}"

    def map(self, user: str, ranking: Ranking) -> HeadMap:
        """Return the head map of a user, calibrated."""
        options, prompters = self._scored_on(user, ranking)
        return self._kept(HeadMap, prompters, options, lambda: self._scored(prompters, options))

    def made(self, users: Sequence[str], ranking: Ranking) -> dict[str, HeadMap]:
        """Return the head maps of users that were made before, by whose they are."""
        paths = {
            self._whose(user): self._path(HeadMap, prompters, options)
            for user in users
            for options, prompters in [self._scored_on(user, ranking)]
        }
        return {name: HeadMap.load(path) for name, path in paths.items() if path.exists()}

    def _scored_on(self, user: str, ranking: Ranking) -> tuple[ScoringOptions, list[TaskPrompter]]:
        most = 2 * self.options.examples  # users: some to score on, as many to calibrate
        prompters = [self.prompters[user]] if self.own(user) else self._others(user)[:most]
        return replace(self.options, ranking=ranking), prompters

    def _scored(self, prompters: Sequence[TaskPrompter], options: ScoringOptions) -> HeadMap:
        if len(prompters) > 1:
            return self._of_many(prompters, options)
        return score(prompters[0].model, prompters[0], options, self.progress)

    def made_from(self, arm: Arm, user: str) -> list[str]:
        """Return digests of those whose texts an arm's heads come from."""
        if arm.method in HEADLESS:
            return []
        prompters = self._others(user) if arm.method in CLUSTERED else self._scored_on(user, self.options.ranking)[1]
        return [prompter.digest for prompter in prompters]

    def cluster_map(self, user: str) -> ClusterMap:
        """Return the clusters of the other half's users."""
        others = self._others(user)
        return self._kept(ClusterMap, others, self.options, lambda: self._clustered(others))

    def _clustered(self, others: Sequence[TaskPrompter]) -> ClusterMap:
        model = others[0].model
        with closing(Embedder(model, n_threads=self.options.n_threads)) as embedder:
            return score_clusters(model, others, self.clusters, self.options, embedder, progress=self.progress)

    def vector(self, user: str) -> Vector:
        """Return a user's vector, for `cluster_map`."""
        if user not in self._vectors:
            with closing(Embedder(self.prompters[user].model, n_threads=self.options.n_threads)) as embedder:
                self._vectors[user] = embed(embedder, self.prompters[user])
        return self._vectors[user]

    def _others(self, user: str) -> list[TaskPrompter]:
        """Return the users of the other half, in a random order."""
        half = self.half[user]
        if half not in self._other_half:
            self._other_half[half] = self._of_half(OTHER[half])
        return self._other_half[half]

    def _of_half(self, half: Half) -> list[TaskPrompter]:
        others = [name for name in self.prompters if self.half[name] == half]
        return [self._with_history(name) for name in shuffled(others, self.options.seed)]

    def _with_history(self, user: str) -> TaskPrompter:
        """Return a user's prompter; one who wrote nothing before is scored on the queries."""
        prompter = self.prompters[user]
        if prompter.profile.history:
            return prompter
        queries = tuple(HistoryItem(query.output, query.input) for query in self.users[user].queries)
        return replace(prompter, profile=replace(prompter.profile, history=queries))

    def _of_many(self, others: Sequence[TaskPrompter], options: ScoringOptions) -> HeadMap:
        """Score on what every other user wrote, and calibrate on what the users between them wrote."""
        scored = self._examples(others[::2], options)
        examples = dict(enumerate([*scored, *self._examples(others[1::2], options)]))
        held_out = list(examples)[len(scored) :]
        split = Split(list(examples)[: len(scored)], [held_out], {i: examples[i][0] for i in held_out})
        texts = {i: example for i, (_, example) in examples.items()}
        whose = [prompter.whose for prompter in others]
        return Scoring(others[0].model, texts, split, options, whose, self.progress).head_map()

    def _examples(self, others: Sequence[TaskPrompter], options: ScoringOptions) -> list[tuple[str, Example]]:
        """Return examples of as many users as possible, the newest of each, with the users' names."""
        each = math.ceil(options.examples / max(len(others), 1))
        items = [(p, i) for back in range(1, each + 1) for p in others if (i := len(p.profile.history) - back) >= 0]
        return [(p.profile.name, e) for p, i in items[: options.examples] if (e := make_example(p, i, options))]

    def _kept(
        self, kind: type[Map], prompters: Sequence[TaskPrompter], options: ScoringOptions, make: Callable[[], Map]
    ) -> Map:
        """Return a map from the folder, or make it and keep it there."""
        path = self._path(kind, prompters, options)
        known = self._made.get(path)
        if isinstance(known, kind):
            return known
        if path.exists():
            found = kind.load(path)
        else:
            found = make()
            found.save(path)
        self._made[path] = found
        return found

    def _path(self, kind: type[Map], prompters: Sequence[TaskPrompter], options: ScoringOptions) -> Path:
        """Return where a map is kept, by all that it depends on."""
        if not prompters:
            raise DpsError("heads from other users need at least two users: give more data, or other --methods")
        first = prompters[0]
        key = [
            kind.__name__,
            self.clusters if kind is ClusterMap else None,
            first.model.identity.digest,
            options.key(),
            [first.task.name, first.budget, first.n_ctx, first.most, first.chosen_by],
            [prompter.digest for prompter in prompters],
        ]
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]}.dps.gguf"
