"""`AnswerFeedback`: what a person says of a chat's answers (/keep, /reject, /edit, /pick), kept in their profile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dps_local.chat.turn import Turn
from dps_local.cli.editing import edit_text
from dps_local.cli.terminal import terminal
from dps_local.errors import CommandError, Remedy, SettingsError, StateError
from dps_local.prompting.feedback import add_feedback, feedback_item
from dps_local.prompting.merging import gist
from dps_local.prompting.profile import Kind, Profile


@dataclass
class AnswerFeedback:
    """profile: of the chat, None without one; it stays as it is, what is kept goes into its file. before: is done
    before the file changes.

    A history item needs an answer that is liked: one that was rejected waits for a better one to the same question.
    """

    profile: Profile | None = None
    before: Callable[[], None] = lambda: None
    _rejected: dict[str, str] = field(default_factory=dict)  # by question
    _compared: tuple[Turn | None, str] = (None, "")  # the turn of a steered answer, and the plain one

    def compared(self, turn: Turn, plain: str) -> None:
        """Let the person pick between an answer and a plain one to the same question."""
        self._compared = turn, plain

    def forget(self) -> None:
        """Let no rejected answer wait any more."""
        self._rejected.clear()

    def keep(self, turn: Turn) -> None:
        answer = self._answer(turn)
        self._add(turn, answer, self._rejected.get(turn.user, ""))

    def reject(self, turn: Turn) -> None:
        self._rejected[turn.user] = self._answer(turn)
        terminal.notice("rejected: /edit it, or /regen and /keep a better one, and your profile has both")

    def edit(self, turn: Turn) -> None:
        answer = self._answer(turn)
        edited = edit_text(answer).strip()
        if not edited or gist(edited) == gist(answer):
            terminal.notice("nothing is kept: the answer is " + ("as it was" if edited else "empty"))
        else:
            self._add(turn, edited, answer, "edited")

    def pick(self, turn: Turn, name: str) -> None:
        if name not in ("plain", "steered"):
            raise CommandError("/pick takes plain or steered")
        steered, (shown, plain) = self._answer(turn), self._compared
        if shown is not turn:
            raise StateError("there is nothing to pick: after /compare on, each question has two answers")
        answers = plain.strip(), steered
        if answers[0] == answers[1] or not all(answers):
            raise StateError("there is nothing to pick: one answer is empty, or both are the same")
        chosen, rejected = answers if name == "plain" else answers[::-1]
        self._add(turn, chosen, rejected)

    def _answer(self, turn: Turn) -> str:
        """Return an answer that can be kept."""
        _ = self._file
        if not (answer := turn.text.strip()):
            raise StateError("the answer is empty")
        return answer

    @property
    def _file(self) -> Path:
        if self.profile is None:
            raise SettingsError("answers are kept in a profile, and this chat has none", Remedy.GIVE_PROFILE)
        return self.profile.own_file

    def _add(self, turn: Turn, output: str, rejected: str, kind: Kind = "kept") -> None:
        path = self._file
        item = feedback_item(turn.user, output, rejected, kind)
        self.before()
        if not add_feedback(path, item):
            terminal.notice(f"{path} has it already")
            return
        self._rejected.pop(turn.user, None)
        how = f"{kind}, and preferred to the other answer" if item.rejected else kind
        terminal.notice(f"{how}: {path}; this chat goes on as it began")
