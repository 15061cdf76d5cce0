"""`HeadMapStore`: head maps of users, from their own texts or from those of other users of the task."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, get_args

from dps_local.engine.context import LayerVectors
from dps_local.engine.embedding import Embedder, Vector
from dps_local.errors import DataError, Remedy
from dps_local.evaluation.condition import CLUSTER_METHODS, METHODS_WITHOUT_HEAD_MAP, STEP_METHODS, Condition
from dps_local.evaluation.dataset import User
from dps_local.evaluation.evaluation_options import Half, HeadSource
from dps_local.evaluation.ngram_cache import NgramModel
from dps_local.evaluation.style_vector import style_vector
from dps_local.evaluation.task_prompter import TaskPrompter
from dps_local.evaluation.user_steps import UserSteps
from dps_local.maps.cluster_map import ClusterMap
from dps_local.maps.head_map import HeadMap
from dps_local.maps.selection import Ranking
from dps_local.prompting.profile import HistoryItem
from dps_local.scoring.clusters import embed, score_clusters
from dps_local.scoring.example import Example, make_example
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.scoring import Scoring, Split, score
from dps_local.system.progress import Progress

MIN_OWN_ITEMS = 8  # of a user's own; with fewer, heads come from other users
OTHER_HALF: dict[Half, Half] = {"choose": "confirm", "confirm": "choose"}
MapType = TypeVar("MapType", HeadMap, ClusterMap)


def halves(users: Sequence[str], seed: int) -> dict[str, Half]:
    """Split users into two halves at random, the same ones for the same names: settings are chosen on one of them."""
    return {user: "confirm" if i % 2 else "choose" for i, user in enumerate(shuffled(users, seed))}


def shuffled(names: Sequence[str], seed: int) -> list[str]:
    """Return names in an order that depends on nothing but them."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


@dataclass
class HeadMapStore:
    """Scores heads when they are asked for, and keeps the maps in a folder.

    users, prompters: all of a task, by name. Where heads come from other users, these are of the other half, so
    that none of their texts is from the user's own queries. clusters: how many to make of them.
    """

    users: Mapping[str, User]
    prompters: Mapping[str, TaskPrompter]
    options: ScoringOptions
    source: HeadSource
    clusters: int
    folder: Path
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self.half = halves(list(self.prompters), self.options.seed)
        self._loaded: dict[Path, HeadMap | ClusterMap] = {}
        self._embeddings: dict[str, Vector] = {}
        self._users_of_other_half: dict[Half, list[TaskPrompter]] = {}
        self._style_vectors: dict[str, LayerVectors | None] = {}
        self._texts: dict[str, list[list[int]]] = {}  # of users, in tokens
        self.steps = UserSteps(
            self._other_users, self._companion, self.prompters, self.options.n_threads, self.progress
        )

    def scored_on_own(self, user: str) -> bool:
        """Whether a user's heads come from their own history."""
        return self.source == "user" and len(self.prompters[user].items) >= MIN_OWN_ITEMS

    def _source_name(self, user: str) -> str:
        """Return a name for those whose texts a user's heads come from: the user, or the other half of the users."""
        return user if self.scored_on_own(user) else f"part {OTHER_HALF[self.half[user]]}"

    def head_map(self, user: str, ranking: Ranking) -> HeadMap:
        """Return the head map of a user, calibrated."""
        options, prompters = self._scoring_users(user, ranking)
        return self._load_or_make(HeadMap, prompters, options, lambda: self._score(prompters, options))

    def stored_maps(self, users: Sequence[str], ranking: Ranking) -> dict[str, HeadMap]:
        """Return the head maps of users that were made before, by whose they are."""
        paths = {
            self._source_name(user): self._path(HeadMap, prompters, options)
            for user in users
            for options, prompters in [self._scoring_users(user, ranking)]
        }
        return {name: HeadMap.load(path) for name, path in paths.items() if path.exists()}

    def _scoring_users(self, user: str, ranking: Ranking) -> tuple[ScoringOptions, list[TaskPrompter]]:
        most = 2 * self.options.examples  # users: some to score on, as many to calibrate
        prompters = [self.prompters[user]] if self.scored_on_own(user) else self._other_users(user)[:most]
        return replace(self.options, ranking=ranking), prompters

    def _score(self, prompters: Sequence[TaskPrompter], options: ScoringOptions) -> HeadMap:
        if len(prompters) > 1:
            return self._score_together(prompters, options)
        return score(prompters[0].model, prompters[0], options, self.progress)

    def sources(self, condition: Condition, user: str) -> list[str | None]:
        """Return digests of what a condition's steering comes from: texts of others, and the map once it is made."""
        if condition.method == "cache":
            return [prompter.digest for prompter in self.prompters.values()]
        if condition.method in METHODS_WITHOUT_HEAD_MAP:
            return []
        if condition.method in STEP_METHODS:
            return [prompter.digest for prompter in [*self._other_users(user), self.prompters[self._companion(user)]]]
        if condition.method in CLUSTER_METHODS:
            path = self._path(ClusterMap, prompters := self._other_users(user), self.options)
        else:
            ranking = next((name for name in get_args(Ranking) if name == condition.method), self.options.ranking)
            options, prompters = self._scoring_users(user, ranking)
            path = self._path(HeadMap, prompters, options)
        map_digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
        return [*(prompter.digest for prompter in prompters), map_digest]

    def style_vector(self, user: str) -> LayerVectors | None:
        """Return a user's direction in each layer, from as many of the newest items as heads are scored on."""
        if user not in self._style_vectors:
            o = self.options
            self._style_vectors[user] = style_vector(self.prompters[user], o.examples, o.target_tokens, o.n_threads)
        return self._style_vectors[user]

    def ngrams(self, user: str) -> tuple[NgramModel, NgramModel]:
        """Return models of what a user wrote, and of what all others did."""
        if not self._texts:
            self._texts = {
                name: [[*p.answer(p.profile.history[i].output), *p.end] for i in p.profile.own_items()]
                for name, p in self.prompters.items()
            }
        others = (text for name, texts in self._texts.items() if name != user for text in texts)
        return NgramModel(self._texts[user]), NgramModel(others)

    def cluster_map(self, user: str) -> ClusterMap:
        """Return the clusters of the other half's users."""
        others = self._other_users(user)
        return self._load_or_make(ClusterMap, others, self.options, lambda: self._score_clusters(others))

    def _score_clusters(self, others: Sequence[TaskPrompter]) -> ClusterMap:
        model = others[0].model
        with closing(Embedder(model, n_threads=self.options.n_threads)) as embedder:
            return score_clusters(model, others, self.clusters, self.options, embedder, progress=self.progress)

    def embedding(self, user: str) -> Vector:
        """Return a user's embedding, for `cluster_map`."""
        if user not in self._embeddings:
            with closing(Embedder(self.prompters[user].model, n_threads=self.options.n_threads)) as embedder:
                self._embeddings[user] = embed(embedder, self.prompters[user])
        return self._embeddings[user]

    def _other_users(self, user: str) -> list[TaskPrompter]:
        """Return the users of the other half, in a random order."""
        half = self.half[user]
        if half not in self._users_of_other_half:
            self._users_of_other_half[half] = self._users_of(OTHER_HALF[half])
        return self._users_of_other_half[half]

    def _companion(self, user: str) -> str:
        """Return another user of the same half, the next in a random order."""
        same = [name for name in shuffled(list(self.half), self.options.seed) if self.half[name] == self.half[user]]
        return same[(same.index(user) + 1) % len(same)]

    def _users_of(self, half: Half) -> list[TaskPrompter]:
        others = [name for name in self.prompters if self.half[name] == half]
        return [self._with_history(name) for name in shuffled(others, self.options.seed)]

    def _with_history(self, user: str) -> TaskPrompter:
        """Return a user's prompter; one who wrote nothing before is scored on the queries."""
        prompter = self.prompters[user]
        if prompter.profile.history:
            return prompter
        queries = tuple(HistoryItem(query.output, query.input) for query in self.users[user].queries)
        return replace(prompter, profile=replace(prompter.profile, history=queries))

    def _score_together(self, others: Sequence[TaskPrompter], options: ScoringOptions) -> HeadMap:
        """Score on what every other user wrote, and calibrate on what the users between them wrote."""
        scored = self._examples(others[::2], options)
        examples = dict(enumerate([*scored, *self._examples(others[1::2], options)]))
        held_out = list(examples)[len(scored) :]
        split = Split(list(examples)[: len(scored)], [held_out], {i: examples[i][0] for i in held_out})
        texts = {i: example for i, (_, example) in examples.items()}
        identity = [prompter.identity for prompter in others]
        return Scoring(others[0].model, texts, split, options, identity, self.progress).head_map()

    def _examples(self, others: Sequence[TaskPrompter], options: ScoringOptions) -> list[tuple[str, Example]]:
        """Return examples of as many users as possible, the newest of each, with the users' names."""
        each = math.ceil(options.examples / max(len(others), 1))
        items = [
            (p, own[-back])
            for back in range(1, each + 1)
            for p in others
            for own in [p.profile.own_items(each)]
            if len(own) >= back
        ]
        return [(p.profile.name, e) for p, i in items[: options.examples] if (e := make_example(p, i, options))]

    def _load_or_make(
        self,
        kind: type[MapType],
        prompters: Sequence[TaskPrompter],
        options: ScoringOptions,
        make: Callable[[], MapType],
    ) -> MapType:
        """Return a map from the folder, or make it and keep it there."""
        path = self._path(kind, prompters, options)
        loaded = self._loaded.get(path)
        if isinstance(loaded, kind):
            return loaded
        if path.exists():
            new = kind.load(path)
        else:
            new = make()
            new.save(path)
        self._loaded[path] = new
        return new

    def _path(self, kind: type[MapType], prompters: Sequence[TaskPrompter], options: ScoringOptions) -> Path:
        """Return where a map is kept, by all that it depends on."""
        if not prompters:
            raise DataError("heads from other users need at least two users", Remedy.MORE_USERS)
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
