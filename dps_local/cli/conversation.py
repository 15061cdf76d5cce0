"""`Conversation`: what is said in the terminal: questions, streamed answers and slash commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.cli.remedies import explained
from dps_local.cli.terminal import Terminal, interruptible
from dps_local.conversations.export import as_openai
from dps_local.conversations.kept_chat import KeptChat
from dps_local.errors import CommandError, DpsError, NativeError, SettingsError, StateError
from dps_local.steering.mixing import Gamma
from dps_local.system.files import atomic_write

STOPPED = {
    "length": "[-n reached]",
    "context": "[the answer fills the context]",
    "interrupted": "[stopped]",
}


@dataclass
class Conversation:
    """A session with a person at the terminal, or with a pipe.

    compare: show the unsteered answer before each steered one. kept: what keeps it, None where nothing does.
    """

    session: Session
    terminal: Terminal
    n_predict: int = -1
    compare: bool = False
    kept: KeptChat | None = None

    def __post_init__(self) -> None:
        self.steering = self.session.steering  # /gamma changes it

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
        with contextlib.suppress(ImportError):
            import readline  # line editing for input(); nothing is kept on disk

            readline.parse_and_bind("set enable-bracketed-paste on")  # a block that is pasted is one question
        self.terminal.notice("/help lists the commands, Ctrl-C stops an answer, Ctrl-D or /exit leaves")
        leaving = False  # a first Ctrl-C was typed
        while True:
            try:
                yield input(">>> ")
                leaving = False
            except KeyboardInterrupt:
                self.terminal.write("\n")
                if leaving:
                    return
                self.terminal.notice("Ctrl-C again leaves")
                leaving = True
            except EOFError:
                self.terminal.write("\n")
                return

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
        return {
            "help": ("show this list", self._help),
            "gamma": ("show or set the strength: /gamma 0.5, /gamma 0 (off), /gamma entropy:cap=1", self._gamma),
            "regen": ("answer the last question again", self._regen),
            "undo": ("take the last question and answer back", self._undo),
            "compare": ("show unsteered answers beside steered ones: /compare on, /compare off", self._compare),
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
        self.terminal.write("plain    ", "bold")
        if self._stream(self.session.ask(question, self.n_predict, steering=None), "dim"):  # else it was called off
            self.terminal.write("steered  ", "bold green")
            self._regenerate()

    def _regenerate(self) -> None:
        self._stream(self.session.regenerate(self.n_predict, steering=self.steering))

    def _stream(self, tokens: Iterator[Token], style: str = "") -> bool:
        """Print an answer as it comes; the first Ctrl-C ends it and keeps the turn. False when there is no turn."""
        last = self.session.turns[-1:]
        with interruptible(self.session.cancel), contextlib.closing(tokens):  # type: ignore[type-var]
            for token in tokens:
                self.terminal.write(token.text, style)
        self.terminal.write("\n")
        answered = bool(self.session.turns) and self.session.turns[-1:] != last
        stopped = STOPPED.get(self.session.turns[-1].stop, "") if answered else "[stopped before the answer began]"
        if stopped:
            self.terminal.notice(stopped)
        if answered and (left := self.session.turns[-1].left):
            turns = f"{left} turns are" if left > 1 else "turn is"
            self.terminal.notice(f"[the context was full: the oldest {turns} forgotten]")
        return answered

    def _help(self, _: str) -> None:
        for name, (text, _command) in self.commands().items():
            self.terminal.write(f"/{name:<8} {text}\n")

    def _gamma(self, text: str) -> None:
        if self.steering is None:
            raise SettingsError("nothing to steer: no head was chosen, or chat was started without --profile and --map")
        if text:
            self.steering = replace(self.steering, gamma=Gamma.parse(text))
        self.terminal.notice(f"γ = {self.steering.gamma}")

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

    def _clear(self, _: str) -> None:
        self.session.clear()
        if self.kept:
            self.kept.begin()
        self.terminal.notice("another conversation begins")

    def _forget(self, _: str) -> None:
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
