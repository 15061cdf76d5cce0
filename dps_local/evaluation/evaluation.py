"""`Evaluation`: every condition on every query of every user, through the session that chat uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dps_local.chat.session import Session
from dps_local.engine.model import Model
from dps_local.errors import StorageError
from dps_local.evaluation.answer_generator import AnswerGenerator
from dps_local.evaluation.benchmarks import TASKS
from dps_local.evaluation.condition import Condition
from dps_local.evaluation.dataset import Query, User
from dps_local.evaluation.evaluation_options import EvaluationOptions
from dps_local.evaluation.head_map_store import HeadMapStore, halves, shuffled
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.outcome import Outcome, outcomes_of
from dps_local.evaluation.prompted_query import PromptedQuery
from dps_local.evaluation.record import Key, Record
from dps_local.evaluation.record_file import RecordFile
from dps_local.evaluation.task_prompter import task_prompter
from dps_local.evaluation.treatment import treatment_of
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.system.progress import Progress

SCORING_UNITS = 20  # units of progress of a user's scoring; a query is one


class Evaluation:
    """Evaluates users, and keeps the records and head maps in a folder; what is there is not computed again."""

    def __init__(
        self,
        model: Model,
        users: Sequence[User],
        options: EvaluationOptions,
        folder: Path,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.options, self.progress = model, options, progress
        self.template = ChatTemplate(model)
        self.setting = options.digest(model)
        try:
            (folder / "maps").mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise StorageError(f"cannot make the folder {folder}: {exc.strerror}") from exc
        self.file = RecordFile(folder / "records.jsonl")
        self.conditions = options.grid.conditions(options.methods)
        self.tasks: dict[str, list[User]] = {}
        for user in users:
            self.tasks.setdefault(user.task, []).append(user)
        self.stores = {task: self._store(task, people, folder / "maps") for task, people in self.tasks.items()}
        self.samples = {task: self._sample(people) for task, people in self.tasks.items()}
        self.done, self.total = 0, sum(SCORING_UNITS + len(qs) for sample in self.samples.values() for _, qs in sample)

    def _store(self, task: str, users: Sequence[User], folder: Path) -> HeadMapStore:
        o = self.options
        prompters = {
            user.id: task_prompter(
                self.model, self.template, user, TASKS[task], o.profile_tokens, o.n_ctx, o.items, o.chosen_by
            )
            for user in users
        }
        return HeadMapStore(
            {user.id: user for user in users}, prompters, o.scoring, o.source, o.clusters, folder, self._on_scoring
        )

    def _sample(self, users: Sequence[User]) -> list[tuple[User, list[Query]]]:
        """Return the users to evaluate, each with the queries."""
        o, by_name = self.options, {user.id: user for user in users}
        half = halves(list(by_name), o.scoring.seed)
        names = [n for n in shuffled(list(by_name), o.scoring.seed) if o.subset in ("all", half[n])]
        return [(by_name[name], self._sampled_queries(by_name[name])) for name in names[: o.users]]

    def _sampled_queries(self, user: User) -> list[Query]:
        by_name = {query.id: query for query in user.queries}
        return [by_name[name] for name in shuffled(list(by_name), self.options.scoring.seed)[: self.options.queries]]

    def _on_scoring(self, done: int, total: int) -> None:
        self._advance(SCORING_UNITS * done // total)

    def _advance(self, more: int = 0) -> None:
        if self.progress:
            self.progress(self.done + more, self.total)

    def run(self) -> None:
        """Evaluate what is not in the file yet; each query's records are on the disk before the next one begins."""
        o = self.options
        chat = Session(self.model, self.template, probs=True, n_ctx=o.n_ctx, n_threads=o.n_threads)
        try:
            generator = AnswerGenerator(chat, o.sampling, o.n_predict) if o.answers else None
            for task, sample in self.samples.items():
                for user, queries in sample:
                    self._evaluate_user(self.stores[task], user, queries, generator)
                    self.done += SCORING_UNITS + len(queries)
                    self._advance()
        finally:
            chat.close()

    def _evaluate_user(
        self, store: HeadMapStore, user: User, queries: Sequence[Query], generator: AnswerGenerator | None
    ) -> None:
        missing = {query: conditions for query in queries if (conditions := self._missing(user, query))}
        if not missing:
            return
        wanted = dict.fromkeys(condition for missed in missing.values() for condition in missed)
        treatments = {condition: treatment_of(condition, user.id, store, self.model) for condition in wanted}
        prompter, n_target = store.prompters[user.id], self.options.target_tokens
        prompted = {query: PromptedQuery(prompter, query, n_target) for query in missing}
        texts = [text for p in prompted.values() for text in p.texts(treatments.values(), self.options.n_predict)]
        likelihood = Likelihood(self.model, texts, self.options.scoring.scope, self.options.n_threads)
        try:
            for i, (query, missed) in enumerate(missing.items(), 1):
                outcomes = outcomes_of(prompted[query], [treatments[c] for c in missed], likelihood, generator)
                pairs = zip(missed, outcomes, strict=True)
                self.file.add([self._record(user, query, condition, outcome) for condition, outcome in pairs])
                self._advance(SCORING_UNITS + i)
        finally:
            likelihood.close()

    def notices(self) -> list[str]:
        """Say what of the file is taken up, and what is not."""
        wanted = [
            self._key(user, query, condition)
            for sample in self.samples.values()
            for user, queries in sample
            for query in queries
            for condition in self.conditions
        ]
        notices = []
        if n_kept := sum(key in self.file.records for key in wanted):
            notices.append(f"taking up an earlier run: {n_kept} of {len(wanted)} results are known")
        if n_outdated := sum(map(self._outdated, self.file.records.values())):
            notices.append(
                f"{n_outdated} results in {self.file.path} are of other data, options or code: they are not used"
            )
        return notices

    def _missing(self, user: User, query: Query) -> list[Condition]:
        known = self.file.records
        return [condition for condition in self.conditions if self._key(user, query, condition) not in known]

    def _key(self, user: User, query: Query, condition: Condition) -> Key:
        """Return the key of a record in its file, if its numbers are those that would be computed now."""
        return self.setting, self._content(user, query, condition), user.task, user.id, query.id, condition

    def _content(self, user: User, query: Query, condition: Condition) -> str:
        store = self.stores[user.task]
        data = [asdict(query), store.prompters[user.id].digest, store.source_digests(condition, user.id)]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def _outdated(self, record: Record) -> bool:
        """Whether a record of this model and of one of these tasks is not one of this data with these options."""
        if record.model != self.model.name or record.task not in self.tasks:
            return False
        user = self.stores[record.task].users.get(record.user)
        queries = [query for query in user.queries if query.id == record.query] if user else []
        return not (user and queries and self._key(user, queries[0], record.condition) == record.key)

    def _record(self, user: User, query: Query, condition: Condition, outcome: Outcome) -> Record:
        return Record(
            setting=self.setting,
            content=self._content(user, query, condition),
            task=user.task,
            model=self.model.name,
            user=user.id,
            query=query.id,
            condition=condition,
            nll=outcome.nll,
            values=outcome.values,
            labels=outcome.labels,
            answer=outcome.answer,
        )

    def records(self) -> list[Record]:
        """Return the records of this data with these options; of other tasks and models, those of their last run."""
        current = [r for r in self.file.records.values() if not self._outdated(r)]
        setting = {(r.task, r.model): r.setting for r in current}
        last = {(r.task, r.model, r.user, r.query, r.condition): r for r in current}
        return [r for r in last.values() if setting[r.task, r.model] == r.setting]

    def maps(self) -> dict[tuple[str, str], dict[str, HeadMap]]:
        """Return the head maps that were made, by task and model, then by whose they are."""
        ranking = self.options.scoring.ranking
        return {
            (task, self.model.name): self.stores[task].stored_maps([user.id for user, _ in sample], ranking)
            for task, sample in self.samples.items()
        }
