"""`Evaluation`: every condition on every query of every user, through the session that chat uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from dps_local.evaluation.style_margin import StyleMargin
from dps_local.evaluation.task_prompter import task_prompter
from dps_local.evaluation.treatment import prompt_kind, treatment_of
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
        self._prompted: dict[tuple[str, str, str], PromptedQuery] = {}
        self.styles = {
            task: StyleMargin({user.id: [item[field] for item in user.items] for user in people})
            for task, people in self.tasks.items()
            if TASKS[task].kind == "text" and (field := TASKS[task].answer_field)
        }
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
            generator = AnswerGenerator(chat, o.sampling, o.n_predict, o.n_answers) if o.answers else None
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
        # a map that had to be made again may be the one that results are there for
        missing = {query: conditions for query in missing if (conditions := self._missing(user, query))}
        if not missing:
            return
        prompted = {query: self._prompted_query(user, query) for query in missing}
        texts = [text for p in prompted.values() for text in p.texts(treatments.values(), self.options.n_predict)]
        likelihood = Likelihood(self.model, texts, self.options.scoring.scope, self.options.n_threads)
        try:
            for i, (query, missed) in enumerate(missing.items(), 1):
                outcomes = outcomes_of(prompted[query], [treatments[c] for c in missed], likelihood, generator)
                pairs = zip(missed, outcomes, strict=True)
                self.file.add(
                    [r for condition, outcome in pairs for r in self._records(user, query, condition, outcome)]
                )
                self._advance(SCORING_UNITS + i)
        finally:
            likelihood.close()

    def notices(self) -> list[str]:
        """Say what of the file is taken up, and what is not."""
        queries = [(user, query) for sample in self.samples.values() for user, queries in sample for query in queries]
        n_wanted = len(queries) * len(self.conditions)
        notices = []
        if n_kept := n_wanted - sum(len(self._missing(user, query)) for user, query in queries):
            notices.append(f"taking up an earlier run: {n_kept} of {n_wanted} results are known")
        if n_outdated := len({r.key[:-1] for r in self.file.records.values() if self._outdated(r)}):
            notices.append(
                f"{n_outdated} results in {self.file.path} are of other data, options or code: they are not used"
            )
        return notices

    def _missing(self, user: User, query: Query) -> list[Condition]:
        known, answers = self.file.records, range(max(1, self.options.n_answers))
        return [c for c in self.conditions if any(self._key(user, query, c, answer) not in known for answer in answers)]

    def _key(self, user: User, query: Query, condition: Condition, sample: int) -> Key:
        """Return the key of a record in its file, if its numbers are those that would be computed now."""
        return self.setting, self._content(user, query, condition), user.task, user.id, query.id, condition, sample

    def _content(self, user: User, query: Query, condition: Condition) -> str:
        store = self.stores[user.task]
        tokens = self._prompted_query(user, query).tokens(prompt_kind(condition))
        data = [asdict(query), tokens, store.prompters[user.id].digest, store.sources(condition, user.id)]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def _prompted_query(self, user: User, query: Query) -> PromptedQuery:
        key = user.task, user.id, query.id
        if key not in self._prompted:
            prompter = self.stores[user.task].prompters[user.id]
            self._prompted[key] = PromptedQuery(prompter, query, self.options.target_tokens)
        return self._prompted[key]

    def _outdated(self, record: Record) -> bool:
        """Whether a record of this model and of one of these tasks is not one of this data with these options."""
        if record.model != self.model.name or record.task not in self.tasks:
            return False
        user = self.stores[record.task].users.get(record.user)
        queries = [query for query in user.queries if query.id == record.query] if user else []
        return not (user and queries and self._key(user, queries[0], record.condition, record.sample) == record.key)

    def _records(self, user: User, query: Query, condition: Condition, outcome: Outcome) -> list[Record]:
        """Return a record of each answer; the first has the likelihoods, too."""
        first = Record(
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
        )
        return [
            self._with_style(
                replace(
                    first,
                    nll=() if i else outcome.nll,
                    values=answer.values if i else outcome.values | answer.values,
                    labels=answer.labels if i else outcome.labels | answer.labels,
                    answer=answer.text,
                    sample=i,
                )
            )
            for i, answer in enumerate(outcome.answers)
        ] or [first]

    def _with_style(self, record: Record) -> Record:
        """Return a record with its answer's style margin, which depends on what everyone of the task wrote."""
        style = self.styles.get(record.task)
        margin = style(record.user, record.answer) if style and record.answer is not None else None
        return record if margin is None else replace(record, values=record.values | {"style": margin})

    def records(self) -> list[Record]:
        """Return the records of this data with these options; of other tasks and models, those of their last run."""
        current = [r for r in self.file.records.values() if not self._outdated(r)]
        setting = {(r.task, r.model): r.setting for r in current}
        last = {(r.task, r.model, r.user, r.query, r.condition, r.sample): r for r in current}
        return [self._with_style(r) for r in last.values() if setting[r.task, r.model] == r.setting]

    def maps(self) -> dict[tuple[str, str], dict[str, HeadMap]]:
        """Return the head maps that were made, by task and model, then by whose they are."""
        ranking = self.options.scoring.ranking
        return {
            (task, self.model.name): self.stores[task].stored_maps([user.id for user, _ in sample], ranking)
            for task, sample in self.samples.items()
        }
