"""`Conversation`: what is said in the terminal: questions, streamed answers and slash commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from dps_local.chat.session import Session
from dps_local.chat.turn import Token, Turn
from dps_local.cli.answer_feedback import AnswerFeedback
from dps_local.cli.remedies import explained
from dps_local.cli.terminal import Terminal, interruptible
from dps_local.conversations.export import as_openai
from dps_local.conversations.kept_chat import KeptChat
from dps_local.drawing.console import has_colour
from dps_local.drawing.explanation import TINTS, tint
from dps_local.errors import CommandError, DpsError, NativeError, SettingsError, StateError
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering
from dps_local.system.files import atomic_write

STOPPED = {
    "length": "[-n reached]",
    "context": "[the answer fills the context]",
    "interrupted": "[stopped]",
}


@dataclass
class Conversation:
    """A session with a person at the terminal, or with a pipe.

    compare: show the unsteered answer before each steered one. person: who asks, for the status line. history:
    whether what is typed is remembered for later chats. markdown: whether answers are drawn, block by block. kept: what
    keeps the conversation, None where nothing does. feedback: what is said of answers.
    """

    session: Session
    terminal: Terminal
    n_predict: int = -1
    compare: bool = False
    person: str = ""
    history: bool = True
    markdown: bool = False
    kept: KeptChat | None = None
    feedback: AnswerFeedback = field(default_factory=AnswerFeedback)

    def __post_init__(self) -> None:
        self.steering = self.session.steering  # /gamma changes it
        self.tint = False

    def run(self) -> bool:
        """Answer questions until the input ends; on a terminal with a prompt, else one question a line.

        False where a line of a pipe failed: the others are answered all the same.
        """
        all_answered = True
        for line in self._prompted_lines() if self.terminal.interactive else sys.stdin:
            try:
                if not self.handle(line.strip()):
                    break
            except DpsError as exc:
                if isinstance(exc, NativeError) and not self.terminal.interactive:
                    raise  # so would the next one
                self.terminal.error(explained(exc))
                all_answered = self.terminal.interactive
        return all_answered

    def _prompted_lines(self) -> Iterator[str]:
        read = self._plain_prompt() if self.terminal.dumb else self._prompt()
        self.terminal.notice("/help lists the commands, Ctrl-C stops an answer, Ctrl-D or /exit leaves")
        leaving = False  # a first Ctrl-C was typed
        while True:
            try:
                yield read()
                leaving = False
            except KeyboardInterrupt:
                if leaving:
                    return
                self.terminal.notice("Ctrl-C again leaves")
                leaving = True
            except EOFError:
                return

    def _prompt(self) -> Callable[[], str]:
        from dps_local.cli.prompt import Prompt  # a pipe need not wait for it

        return Prompt(self.terminal, self.commands, self.status, history=self.history).read

    def _plain_prompt(self) -> Callable[[], str]:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 line editing for input(); nothing is kept on disk

        def read() -> str:
            try:
                return input(">>> ")
            except (KeyboardInterrupt, EOFError):
                self.terminal.write("\n")
                raise

        return read

    def status(self) -> list[str]:
        """Return what the line below the prompt tells, the most important first."""
        session, turns = self.session, self.session.turns
        steering = self.steering if self.steering and not self.steering.gamma.off else None
        return [
            *([self.person] if self.person else []),
            f"{steering.mode} γ {steering.gamma}" if steering else "not steered",
            f"{session.full.n:,}/{session.full.context.n_ctx:,} tokens",
            *([f"{1000 / turns[-1].timings.token_ms:.0f} tokens/s"] if turns and turns[-1].tokens else []),
        ]

    def handle(self, line: str) -> bool:
        """Answer one line or run its slash command, and keep what came of it; False when it is time to leave."""
        try:
            return self._handle(line)
        finally:
            if self.kept:
                self.kept.update()

    def _handle(self, line: str) -> bool:
        if not line:
            return True
        name, _, argument = line[1:].partition(" ")
        if line.startswith("/"):
            if name in ("exit", "quit", "bye"):
                return False
            if command := self.commands().get(name):
                command[1](argument.strip())
                return True
            if name.isalpha() and self.terminal.interactive:  # mistyped; but /etc/passwd is the beginning of a question
                raise CommandError(f"there is no command /{name}: /help lists them")
        self.answer(line)
        return True

    def commands(self) -> dict[str, tuple[str, Callable[[str], None]]]:
        feedback = self.feedback
        return {
            "help": ("show this list", self._help),
            "gamma": ("show or set the strength: /gamma 0.5, /gamma 0 (off), /gamma entropy:cap=1", self._gamma),
            "regen": ("answer the last question again", self._regen),
            "undo": ("take the last question and answer back", self._undo),
            "compare": ("show unsteered answers beside steered ones: /compare on, /compare off", self._compare),
            "keep": ("keep the last answer in your profile, as one that you like", self._of_last(feedback.keep)),
            "reject": ("say that another answer would be better", self._of_last(feedback.reject)),
            "edit": ("open the last answer in your editor, and keep what you make of it", self._of_last(feedback.edit)),
            "pick": ("keep one of two answers that /compare shows: /pick plain, /pick steered", self._pick),
            "tint": (f"colour tokens by what heads did as they come ({TINTS}): /tint on, /tint off", self._tint),
            "clear": ("begin another conversation", self._clear),
            "forget": ("remove the conversation from what is kept, and keep nothing more", self._forget),
            "save": ("write the conversation to a JSON file: /save FILE", self._save),
            "exit": ("leave (also /quit, /bye, Ctrl-D)", lambda _: None),
        }

    def answer(self, question: str) -> None:
        if self.kept:
            self.kept.asked(question)
        if not (self.compare and self.steering and not self.steering.gamma.off):
            self._stream(self.session.ask(question, self.n_predict, steering=self.steering))
            return
        self._label("plain", "bold")
        if self._stream(self.session.ask(question, self.n_predict, steering=None), "dim"):  # else it was called off
            plain = self.session.turns[-1].text
            self._label("steered", "bold green")
            self._regenerate()
            self.feedback.compared(self.session.turns[-1], plain)

    def _regenerate(self) -> None:
        self._stream(self.session.regenerate(self.n_predict, steering=self.steering))

    def _stream(self, tokens: Iterator[Token], style: str = "") -> bool:
        """Print an answer as it comes; the first Ctrl-C ends it and keeps the turn. False when there is no turn."""
        last = self.session.turns[-1:]
        with interruptible(self.session.cancel), contextlib.closing(tokens), self._printing(style) as show:  # type: ignore[type-var]
            for token in tokens:
                show(token)
        answered = bool(self.session.turns) and self.session.turns[-1:] != last
        stopped = STOPPED.get(self.session.turns[-1].stop, "") if answered else "[stopped before the answer began]"
        if stopped:
            self.terminal.notice(stopped)
        if answered and (left := self.session.turns[-1].left):
            turns = f"{left} turns are" if left > 1 else "turn is"
            self.terminal.notice(f"[the context was full: the oldest {turns} forgotten]")
        return answered

    @contextlib.contextmanager
    def _printing(self, style: str) -> Iterator[Callable[[Token], None]]:
        """Yield what prints a token of an answer."""
        if self.tint or not self.markdown:
            yield self._tinted if self.tint else lambda token: self.terminal.write(token.text, style)
            self.terminal.write("\n")
            return
        from dps_local.cli.markdown_stream import MarkdownStream  # a pipe need not wait for it

        drawn = MarkdownStream(self.terminal, style)
        try:
            yield lambda token: drawn.write(token.text)
        finally:
            drawn.close()

    def _tinted(self, token: Token) -> None:
        """Print a token in the colour of how far heads moved it; line ends have none, as it would fill their lines."""
        text = token.text.rstrip("\n")
        self.terminal.write(text, tint(token.shift))
        self.terminal.write(token.text[len(text) :])

    def _label(self, name: str, style: str) -> None:
        """Say whose answer comes: before its text, or above its blocks."""
        self.terminal.write(f"{name}\n" if self.markdown and not self.tint else f"{name:<9}", style)

    def _help(self, _: str) -> None:
        rows = [[f"/{name}", text] for name, (text, _command) in self.commands().items()]
        self.terminal.table(["command", "what it does"], rows)

    def _gamma(self, text: str) -> None:
        steering = self._need_steering()
        if text:
            self.steering = steering = replace(steering, gamma=Gamma.parse(text))
        self.terminal.notice(f"γ = {steering.gamma}")

    def _need_steering(self) -> Steering:
        if self.steering is None:
            raise SettingsError("nothing to steer: no head was chosen, or chat was started without --profile and --map")
        return self.steering

    def _regen(self, _: str) -> None:
        self._need_turn()
        self._regenerate()

    def _undo(self, _: str) -> None:
        self._need_turn()
        try:
            turn = self.session.undo()
        except KeyboardInterrupt:
            self.terminal.notice("[stopped: nothing is taken back]")
            return
        self.terminal.notice(f"taken back: {turn.user}")

    def _need_turn(self) -> None:
        if not self.session.turns:
            raise StateError("the answers have left the context" if self.session.past else "there is no answer yet")

    def _compare(self, text: str) -> None:
        if text not in ("on", "off"):
            raise CommandError("/compare takes on or off")
        self.compare = text == "on"

    def _of_last(self, say: Callable[[Turn], None]) -> Callable[[str], None]:
        """Return a command that says something of the last answer."""

        def command(_: str) -> None:
            self._need_turn()
            say(self.session.turns[-1])

        return command

    def _pick(self, name: str) -> None:
        self._of_last(lambda turn: self.feedback.pick(turn, name))("")

    def _tint(self, text: str) -> None:
        if text not in ("on", "off"):
            raise CommandError("/tint takes on or off")
        if text == "on":
            self._need_steering()
            if not has_colour(self.terminal.out):
                raise SettingsError("this terminal shows too few colours to tint with")
            if self.steering and self.steering.mode == "amplify":
                raise SettingsError(
                    "amplified heads have no plain stream beside them to compare with: `dps-local generate --explain` "
                    "compares afterwards"
                )
        self.tint = self.session.probs = text == "on"

    def _clear(self, _: str) -> None:
        self.session.clear()
        self.feedback.forget()
        if self.kept:
            self.kept.begin()
        self.terminal.notice("another conversation begins")

    def _forget(self, _: str) -> None:
        self.feedback.forget()
        if self.kept:
            self.kept.forget()
        self.terminal.notice("nothing of this conversation is kept, and nothing more will be")

    def _save(self, path: str) -> None:
        if not path:
            raise CommandError("/save takes the name of a file")
        target = Path(path).expanduser()
        with atomic_write(target) as file:
            file.write(json.dumps(self.transcript(), ensure_ascii=False, indent=2).encode())
        self.terminal.notice(f"saved to {target}")

    def transcript(self) -> dict[str, object]:
        """Return the conversation as role/content messages, as chat programs exchange them."""
        gamma = str(self.steering.gamma) if self.steering else "0"
        return as_openai(self.session.model.name, gamma, self.session.messages())
