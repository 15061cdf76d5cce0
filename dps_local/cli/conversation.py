"""`Chat`: the conversation in the terminal: questions, streamed answers and slash commands."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.cli.terminal import Terminal, interruptible
from dps_local.errors import DpsError, NativeError
from dps_local.steering.mixing import Gamma
from dps_local.system.files import atomic_write

STOPPED = {
    "length": "[-n reached]",
    "context": "[the answer fills the context]",
    "interrupted": "[stopped]",
}


@dataclass
class Chat:
    """One conversation. compare: show the unsteered answer before each steered one."""

    session: Session
    terminal: Terminal
    n_predict: int = -1
    compare: bool = False

    def run(self) -> bool:
        """Answer questions until the input ends; on a terminal with a prompt, else one question a line.

        False where a line of a pipe failed: the others are answered all the same.
        """
        fine = True
        for line in self._typed() if self.terminal.interactive else sys.stdin:
            try:
                if not self.handle(line.strip()):
                    break
            except DpsError as exc:
                if isinstance(exc, NativeError) and not self.terminal.interactive:
                    raise  # so would the next one
                self.terminal.error(str(exc))
                fine = self.terminal.interactive
        return fine

    def _typed(self) -> Iterator[str]:
        with contextlib.suppress(ImportError):
            import readline  # line editing for input(); nothing is kept on disk

            readline.parse_and_bind("set enable-bracketed-paste on")  # a block that is pasted is one question
        self.terminal.notice("/help lists the commands, Ctrl-C stops an answer, Ctrl-D or /exit leaves")
        asked = False  # whether to leave
        while True:
            try:
                yield input(">>> ")
                asked = False
            except KeyboardInterrupt:
                self.terminal.write("\n")
                if asked:
                    return
                self.terminal.notice("Ctrl-C again leaves")
                asked = True
            except EOFError:
                self.terminal.write("\n")
                return

    def handle(self, line: str) -> bool:
        """Answer one line or run its slash command; False when it is time to leave."""
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
                raise DpsError(f"there is no command /{name}: /help lists them")
        self.answer(line)
        return True

    def commands(self) -> dict[str, tuple[str, Callable[[str], None]]]:
        return {
            "help": ("show this list", self._help),
            "gamma": ("show or set the strength: /gamma 0.5, /gamma 0 (off), /gamma entropy:cap=1", self._gamma),
            "regen": ("answer the last question again", self._regen),
            "undo": ("take the last question and answer back", self._undo),
            "compare": ("show unsteered answers beside steered ones: /compare on, /compare off", self._compare),
            "clear": ("forget the conversation", self._clear),
            "save": ("write the conversation to a JSON file: /save FILE", self._save),
            "exit": ("leave (also /quit, /bye, Ctrl-D)", lambda _: None),
        }

    def answer(self, question: str) -> None:
        if self.compare and self.session.steering and not self.session.steering.gamma.off:
            if self._plain(question):
                self.terminal.write("steered  ", "bold green")
                self._stream(self.session.regenerate(self.n_predict))
        else:
            self._stream(self.session.ask(question, self.n_predict))

    def _plain(self, question: str) -> bool:
        """Show the answer without steering, which the steered one is to replace; False when it was called off."""
        steering, self.session.steering = self.session.steering, None
        try:
            self.terminal.write("plain    ", "bold")
            return self._stream(self.session.ask(question, self.n_predict), "dim")
        finally:
            self.session.steering = steering

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
            gone = f"{left} turns are" if left > 1 else "turn is"
            self.terminal.notice(f"[the context was full: the oldest {gone} forgotten]")
        return answered

    def _help(self, _: str) -> None:
        for name, (text, _command) in self.commands().items():
            self.terminal.write(f"/{name:<8} {text}\n")

    def _gamma(self, text: str) -> None:
        steering = self.session.steering
        if steering is None:
            raise DpsError("nothing to steer: no head was chosen, or chat was started without --profile and --map")
        if text:
            self.session.steering = replace(steering, gamma=Gamma.parse(text))
        self.terminal.notice(f"γ = {self.session.steering.gamma}" if self.session.steering else "")

    def _regen(self, _: str) -> None:
        self._need_turn()
        self._stream(self.session.regenerate(self.n_predict))

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
            raise DpsError("the answers have left the context" if self.session.past else "there is no answer yet")

    def _compare(self, text: str) -> None:
        if text not in ("on", "off"):
            raise DpsError("/compare takes on or off")
        self.compare = text == "on"

    def _clear(self, _: str) -> None:
        self.session.clear()
        self.terminal.notice("the conversation is forgotten")

    def _save(self, path: str) -> None:
        if not path:
            raise DpsError("/save takes the name of a file")
        target = Path(path).expanduser()
        with atomic_write(target) as file:
            file.write(json.dumps(self.transcript(), ensure_ascii=False, indent=2).encode())
        self.terminal.notice(f"saved to {target}")

    def transcript(self) -> dict[str, object]:
        """Return the conversation as role/content messages, as chat programs exchange them."""
        messages = []
        for question, answer in [*self.session.past, *((turn.user, turn.text) for turn in self.session.turns)]:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        steering = self.session.steering
        return {
            "model": self.session.model.name,
            "gamma": str(steering.gamma) if steering else "0",
            "messages": messages,
        }
