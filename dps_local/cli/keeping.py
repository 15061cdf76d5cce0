"""Chats that last: options of `dps-local chat`, what it says of them, and how it goes on with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from dps_local.assistant import Assistant
from dps_local.chat.session import Session
from dps_local.cli.options import not_empty
from dps_local.cli.terminal import interruptible, terminal
from dps_local.conversations.conversation import Conversation, KeptTurn, messages_of, without_tokens
from dps_local.conversations.conversation_store import ConversationStore
from dps_local.conversations.kept_chat import KeptChat
from dps_local.conversations.setup import Setup
from dps_local.engine import registry
from dps_local.errors import StorageError
from dps_local.steering.mixing import Gamma

FILES = ("model", "profile", "map", "embedding_model")  # options that name files, or what the program knows by name
PARSED: dict[str, Callable[[str], Any]] = {"gamma": Gamma.parse, "map": Path, "embedding_model": Path}
Group = TypeVar("Group")


@dataclass(frozen=True)
class KeepOptions:
    go_on: Annotated[
        bool, typer.Option("--continue", "-C", help="Go on with the last conversation, as it was set up.")
    ] = False
    resume: Annotated[
        str | None, typer.Option(metavar="ID|TITLE", callback=not_empty, help="Go on with another conversation.")
    ] = None
    save: Annotated[
        bool, typer.Option("--save/--no-save", help="Keep the conversation, for you alone, on this computer.")
    ] = True


@dataclass
class Kept:
    """The store of a chat, None where nothing is kept, and the conversation to go on with.

    context: of the command line, which knows what was given. save: whether what is said now is kept.
    """

    context: typer.Context
    save: bool
    store: ConversationStore | None
    conversation: Conversation | None

    def as_set_up(self, group: Group) -> Group:
        """Return options as the conversation was set up with, but for those that were given now."""
        options = self.conversation.setup.options if self.conversation else {}
        names = [field.name for field in fields(group)]  # type: ignore[arg-type]
        taken = {name: options[name] for name in names if name in options and not self._given(name)}
        parsed = {name: PARSED[name](value) for name, value in taken.items() if value and name in PARSED}
        return replace(group, **taken | parsed)  # type: ignore[type-var]

    def chat(self, assistant: Assistant) -> KeptChat | None:
        """Bring the session to where the conversation ended, and return what keeps it from there.

        The first chat of all says that conversations are kept.
        """
        setup = Setup.of(assistant.session, assistant.prompter, self._options())
        turns = list[KeptTurn]()
        if self.store and self.conversation:
            turns = self._go_on(self.store, self.conversation, assistant.session, setup)
        if self.store is None or not self.save:
            return None
        if self.store.unused:
            terminal.notice(
                f"conversations are kept in {self.store.path}, which you alone can read: --no-save and /forget keep "
                "nothing of one, `dps-local conversations` shows, exports and removes them"
            )
        return KeptChat(self.store, assistant.session, setup, terminal.notice, self.conversation, turns)

    def _go_on(
        self, store: ConversationStore, conversation: Conversation, session: Session, setup: Setup
    ) -> list[KeptTurn]:
        """Return the turns of the store that hold: none, where they are read as text."""
        turns, changed = store.turns(conversation), conversation.setup.changes(setup)
        messages = messages_of(turns)
        terminal.notice(f"going on with {conversation.id}: {conversation.title}")
        if changed:
            terminal.notice(f"another {' and '.join(changed)} than then: the text of the conversation is read again")
            messages = without_tokens(messages)
        elif messages and session.steering and not self._given("gamma"):
            session.steering = replace(session.steering, gamma=Gamma.parse(messages[-1]["gamma"]))
        with terminal.progress("reading the conversation") as progress, interruptible(session.cancel):
            if not session.restore(messages, progress):
                raise KeyboardInterrupt
        _show_last(turns)
        return [] if changed else turns

    def _given(self, name: str) -> bool:
        return self._source(name) == "COMMANDLINE"

    def _source(self, name: str) -> str:
        """Return where an option comes from: the command line, a setting or a default."""
        source = self.context.get_parameter_source(name)
        return source.name if source else "DEFAULT"

    def _options(self) -> dict[str, Any]:
        """Return the options that were chosen, as JSON has them; names of files hold in every folder."""
        own = {field.name for field in fields(KeepOptions)}
        now = {name: _plain(name, value) for name, value in self.context.params.items() if name not in own}
        chosen = {name: value for name, value in now.items() if self._source(name) != "DEFAULT"}
        given = {name: value for name, value in now.items() if self._given(name)}
        earlier = self.conversation.setup.options if self.conversation else {}
        return {"model": registry.default_name()} | chosen | earlier | given


@contextmanager
def kept(context: typer.Context, options: KeepOptions, compare: bool) -> Iterator[Kept]:
    """Open the store of conversations, and find the one to go on with.

    Where the store cannot be used, a new chat is not kept, which is said. compare: of which nothing is kept.
    """
    wanted = options.go_on or options.resume is not None
    if options.go_on and options.resume is not None:
        raise typer.BadParameter("--continue and --resume do not go together")
    if compare and wanted:
        raise typer.BadParameter("nothing of a chat with --compare is kept: leave it out, and type /compare on")
    store = None
    try:
        if wanted or (options.save and not compare):
            store = ConversationStore()
    except StorageError as exc:
        if wanted:
            raise
        terminal.notice(f"{exc}; this conversation is not kept")
    if store is None:
        yield Kept(context, False, None, None)
        return
    with store:
        found = store.find(options.resume) if options.resume else store.last() if options.go_on else None
        yield Kept(context, options.save, store, found)


def say_how_to_come_back(chat: KeptChat | None) -> None:
    if chat and chat.conversation and terminal.interactive:
        terminal.notice(f"`dps-local chat --resume {chat.conversation.id}` goes on with this conversation")


def _plain(name: str, value: Any) -> Any:
    if name in FILES and value and (path := Path(value).expanduser()).exists():
        return str(path.resolve())
    return str(value) if isinstance(value, (Path, Gamma)) else value


def _show_last(turns: list[KeptTurn]) -> None:
    """Show a person where the conversation was."""
    if not (turns and terminal.interactive):
        return
    question, answer = turns[-1]
    if answer is None:
        terminal.notice(f"without an answer yet: {question}")
    else:
        terminal.write(f">>> {question}\n{answer['content']}\n", "dim")
