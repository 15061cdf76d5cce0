"""`Evaluation`: every arm on every query of every user, through the session that chat uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from dps_local.chat.session import Session
from dps_local.engine.model import Model
from dps_local.errors import DpsError
from dps_local.evaluation.arms import Arm
from dps_local.evaluation.asked import Answers, Asked, Result, results
from dps_local.evaluation.dataset import Query, User
from dps_local.evaluation.evaluation_options import EvaluationOptions
from dps_local.evaluation.heads import Heads, halves, shuffled
from dps_local.evaluation.likelihood import Likelihood
from dps_local.evaluation.records import Key, Record, RecordFile
from dps_local.evaluation.task_prompt import task_prompter
from dps_local.evaluation.tasks import TASKS
from dps_local.evaluation.way import way_of
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.scoring.ablation import Progress

SCORING = 20  # units of progress of a user's scoring; a query is one


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
            raise DpsError(f"cannot make the folder {folder}: {exc.strerror}") from exc
        self.file = RecordFile(folder / "records.jsonl")
        self.arms = options.grid.arms(options.methods)
        self.tasks: dict[str, list[User]] = {}
        for user in users:
            self.tasks.setdefault(user.task, []).append(user)
        self.heads = {task: self._heads(task, people, folder / "maps") for task, people in self.tasks.items()}
        self.chosen = {task: self._chosen(people) for task, people in self.tasks.items()}
        self.done, self.total = 0, sum(SCORING + len(qs) for part in self.chosen.values() for _, qs in part)

    def _heads(self, task: str, users: Sequence[User], folder: Path) -> Heads:
        o = self.options
        prompters = {
            user.id: task_prompter(
                self.model, self.template, user, TASKS[task], o.profile_tokens, o.n_ctx, o.items, o.chosen_by
            )
            for user in users
        }
        return Heads(
            {user.id: user for user in users}, prompters, o.scoring, o.source, o.clusters, folder, self._scored
        )

    def _chosen(self, users: Sequence[User]) -> list[tuple[User, list[Query]]]:
        """Return the users to evaluate, each with the queries."""
        o, by_name = self.options, {user.id: user for user in users}
        half = halves(list(by_name), o.scoring.seed)
        names = [n for n in shuffled(list(by_name), o.scoring.seed) if o.part in ("all", half[n])]
        return [(by_name[name], self._queries(by_name[name])) for name in names[: o.users]]

    def _queries(self, user: User) -> list[Query]:
        by_name = {query.id: query for query in user.queries}
        return [by_name[name] for name in shuffled(list(by_name), self.options.scoring.seed)[: self.options.queries]]

    def _scored(self, done: int, total: int) -> None:
        self._advance(SCORING * done // total)

    def _advance(self, more: int = 0) -> None:
        if self.progress:
            self.progress(self.done + more, self.total)

    def run(self) -> None:
        """Evaluate what is not in the file yet; each query's records are on the disk before the next one begins."""
        o = self.options
        chat = Session(self.model, self.template, probs=True, n_ctx=o.n_ctx, n_threads=o.n_threads)
        try:
            answers = Answers(chat, o.sampling, o.n_predict) if o.answers else None
            for task, people in self.chosen.items():
                for user, queries in people:
                    self._user(self.heads[task], user, queries, answers)
                    self.done += SCORING + len(queries)
                    self._advance()
        finally:
            chat.close()

    def _user(self, heads: Heads, user: User, queries: Sequence[Query], answers: Answers | None) -> None:
        missing = {query: arms for query in queries if (arms := self._missing(user, query))}
        if not missing:
            return
        ways = {arm: way_of(arm, user.id, heads, self.model) for arms in missing.values() for arm in arms}
        asked = [Asked(heads.prompters[user.id], query, self.options.target_tokens) for query in missing]
        texts = [text for a in asked for text in a.texts(ways.values(), self.options.n_predict)]
        likelihood = Likelihood(self.model, texts, self.options.scoring.scope, self.options.n_threads)
        try:
            for i, (a, arms) in enumerate(zip(asked, missing.values(), strict=True), 1):
                found = results(a, [ways[arm] for arm in arms], likelihood, answers)
                self.file.add([self._record(user, a.query, *pair) for pair in zip(arms, found, strict=True)])
                self._advance(SCORING + i)
        finally:
            likelihood.close()

    def news(self) -> list[str]:
        """Say what of the file is taken up, and what is not."""
        wanted = [
            self._key(user, query, arm)
            for people in self.chosen.values()
            for user, queries in people
            for query in queries
            for arm in self.arms
        ]
        news = []
        if known := sum(key in self.file.records for key in wanted):
            news.append(f"taking up an earlier run: {known} of {len(wanted)} results are known")
        if others := sum(map(self._outdated, self.file.records.values())):
            news.append(f"{others} results in {self.file.path} are of other data, options or code: they are not used")
        return news

    def _missing(self, user: User, query: Query) -> list[Arm]:
        return [arm for arm in self.arms if self._key(user, query, arm) not in self.file.records]

    def _key(self, user: User, query: Query, arm: Arm) -> Key:
        """Return what a record has in its file, where its numbers are those that would be found now."""
        return self.setting, self._content(user, query, arm), user.task, user.id, query.id, arm

    def _content(self, user: User, query: Query, arm: Arm) -> str:
        heads = self.heads[user.task]
        data = [asdict(query), heads.prompters[user.id].digest, heads.made_from(arm, user.id)]
        return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]

    def _outdated(self, record: Record) -> bool:
        """Whether a record of this model and of one of these tasks is not one of this data with these options."""
        if record.model != self.model.name or record.task not in self.tasks:
            return False
        user = self.heads[record.task].users.get(record.user)
        queries = [query for query in user.queries if query.id == record.query] if user else []
        return not (user and queries and self._key(user, queries[0], record.arm) == record.key)

    def _record(self, user: User, query: Query, arm: Arm, found: Result) -> Record:
        return Record(
            setting=self.setting,
            content=self._content(user, query, arm),
            task=user.task,
            model=self.model.name,
            user=user.id,
            query=query.id,
            arm=arm,
            nll=found.nll,
            values=found.values,
            labels=found.labels,
            answer=found.answer,
        )

    def records(self) -> list[Record]:
        """Return the records of this data with these options; of other tasks and models, those of their last run."""
        found = [r for r in self.file.records.values() if not self._outdated(r)]
        setting = {(r.task, r.model): r.setting for r in found}
        last = {(r.task, r.model, r.user, r.query, r.arm): r for r in found}
        return [r for r in last.values() if setting[r.task, r.model] == r.setting]

    def maps(self) -> dict[tuple[str, str], dict[str, HeadMap]]:
        """Return the head maps that were made, by task and model, then by whose they are."""
        ranking = self.options.scoring.ranking
        return {
            (task, self.model.name): self.heads[task].made([user.id for user, _ in people], ranking)
            for task, people in self.chosen.items()
        }
