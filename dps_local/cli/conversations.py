"""`dps-local conversations list`, `show`, `search`, `export` and `rm`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dps_local.cli.options import JsonOption, YesOption
from dps_local.cli.terminal import terminal
from dps_local.conversations.conversation import Conversation, messages_of
from dps_local.conversations.conversation_store import ConversationStore
from dps_local.conversations.export import as_markdown, as_openai
from dps_local.drawing.text import counted
from dps_local.system.files import atomic_write

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

conversations_app = typer.Typer(no_args_is_help=True, help="Conversations that were kept: find, read, remove them.")
NameArgument = Annotated[str, typer.Argument(metavar="ID|TITLE", help="As `dps-local conversations list` shows it.")]


class Format(StrEnum):
    json = "json"
    md = "md"


def _age(text: str) -> timedelta:
    if not (match := re.fullmatch(r"(\d{1,5})([hdw])", text.strip())):
        raise typer.BadParameter(f"{text!r} is no age, such as 12h, 30d or 8w")
    return int(match[1]) * UNITS[match[2]]


@conversations_app.command("list")
def list_conversations(as_json: JsonOption = False) -> None:
    """List conversations, the last one first."""
    with ConversationStore() as store:
        known = store.all()
    if as_json:
        terminal.json([conversation.as_json() for conversation in known])
    else:
        columns = ["id", "title", "person", "model", "turns", "updated"]
        terminal.table(columns, [_row(conversation) for conversation in known])


def _row(conversation: Conversation) -> list[str]:
    setup, updated = conversation.setup, datetime.fromisoformat(conversation.updated).astimezone()
    person, turns = Path(setup.person).stem, str(conversation.turns)
    return [str(conversation.id), conversation.title, person, setup.model, turns, f"{updated:%Y-%m-%d %H:%M}"]


@conversations_app.command("show")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a conversation, or with --json all that is known of it."""
    with ConversationStore() as store:
        conversation = store.find(name)
        messages = messages_of(store.turns(conversation))
    if as_json:
        terminal.json({**conversation.as_json(), "messages": messages})
    else:
        terminal.write(as_markdown(conversation, messages))


@conversations_app.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="Turns that have all of them, or words that they are a part of.")],
    as_json: JsonOption = False,
) -> None:
    """Search what was said, whatever the case and the accents."""
    with ConversationStore() as store:
        found = store.search(words)
    if as_json:
        terminal.json([{**hit.conversation.as_json(), "turn": hit.turn, "excerpt": hit.excerpt} for hit in found])
    else:
        rows = [[str(hit.conversation.id), hit.conversation.title, hit.excerpt] for hit in found]
        terminal.table(["id", "title", ""], rows)


@conversations_app.command("export")
def export(
    name: NameArgument,
    format_: Annotated[
        Format, typer.Option("--format", help="Messages as JSON, as OpenAI's API has them; or Markdown.")
    ] = Format.json,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file. Default: stdout.")] = None,
    yes: YesOption = False,
) -> None:
    """Write a conversation for another program."""
    with ConversationStore() as store:
        conversation = store.find(name)
        messages = messages_of(store.turns(conversation))
    if output:
        terminal.ask_to_overwrite(output, yes)
    if format_ == Format.md:
        text = as_markdown(conversation, messages)
    else:
        gamma = messages[-1]["gamma"] if messages else "0"
        data = as_openai(conversation.setup.model, gamma, messages)
        if output is None:
            terminal.json(data)
            return
        text = json.dumps(data, ensure_ascii=False, indent=2)
    if output is None:
        terminal.write(text)
        return
    with atomic_write(output) as stream:
        stream.write(text.encode())
    terminal.notice(f"wrote {output}")


@conversations_app.command("rm")
def remove(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ID|TITLE]...", help="Which ones.")] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(parser=_age, metavar="AGE", help="Those that nothing was said in for so long: 12h, 30d, 8w."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All conversations.")] = False,
    yes: YesOption = False,
) -> None:
    """Remove conversations; no word of them is left."""
    if (bool(names) + (older_than is not None) + all_) != 1:
        raise typer.BadParameter("say which conversations: by ID or title, by --older-than 30d, or --all")
    with ConversationStore() as store:
        if names:
            chosen = list({found.id: found for found in map(store.find, names)}.values())
        else:
            since = datetime.now(UTC) - (older_than or timedelta())
            chosen = [c for c in store.all() if all_ or datetime.fromisoformat(c.updated) < since]
        if not yes and chosen:
            _ask(chosen)
        store.remove(chosen)
    terminal.notice(f"removed {counted(len(chosen), 'conversation')}")


def _ask(chosen: Iterable[Conversation]) -> None:
    terminal.table(["id", "title", "turns"], [[str(c.id), c.title, str(c.turns)] for c in chosen])
    terminal.ask_for_yes("Remove them for good?")
