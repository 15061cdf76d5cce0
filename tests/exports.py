"""Exports as chat programs, assistants and people write them, made up: the sources that every format is tried with."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LRM, NNBSP = "\u200e", "\u202f"

# what Mara wrote in each is "Low water at six.\nBring the ladder.", 2 min after Jan's question; see test_whatsapp.py
WHATSAPP = {
    "android-english-gb": (
        "13/02/2024, 08:15 - Messages and calls are end-to-end encrypted. No one outside of this chat can read them.\n"
        "13/02/2024, 08:16 - Jan de Vries: When can we paint the hull?\n"
        "13/02/2024, 08:18 - Mara: Low water at six.\n"
        "Bring the ladder.\n"
        "13/02/2024, 08:20 - Mara: <Media omitted>\n"
        "13/02/2024, 08:21 - Mara: This message was deleted\n"
    ),
    "ios-english-us": (
        f"[2/13/24, 8:15:03{NNBSP}AM] Jan de Vries: {LRM}Messages and calls are end-to-end encrypted.\r\n"
        f"[2/13/24, 8:16:10{NNBSP}AM] Jan de Vries: When can we paint the hull?\r\n"
        f"[2/13/24, 8:18:59{NNBSP}AM] Mara: Low water at six.\n"
        "Bring the ladder.\r\n"
        f"{LRM}[2/13/24, 8:20:00{NNBSP}AM] Mara: {LRM}image omitted\r\n"
        f"[2/13/24, 8:21:00{NNBSP}AM] Mara: {LRM}You deleted this message.\r\n"
    ),
    "android-german": (
        "13.02.24, 08:15 - Nachrichten und Anrufe sind Ende-zu-Ende-verschlüsselt.\n"
        "13.02.24, 08:16 - Jan de Vries: When can we paint the hull?\n"
        "13.02.24, 08:18 - Mara: Low water at six.\n"
        "Bring the ladder.\n"
        "13.02.24, 08:20 - Mara: <Medien ausgeschlossen>\n"
        "13.02.24, 08:21 - Mara: Diese Nachricht wurde gelöscht.\n"
    ),
    "ios-french": (
        f"[13/02/2024 08:15:03] Jan de Vries: {LRM}Les messages et les appels sont chiffrés de bout en bout.\r\n"
        "[13/02/2024 08:16:10] Jan de Vries: When can we paint the hull?\r\n"
        "[13/02/2024 08:18:59] Mara: Low water at six.\nBring the ladder.\r\n"
        f"{LRM}[13/02/2024 08:20:00] Mara: {LRM}image absente\r\n"
        f"[13/02/2024 08:21:00] Mara: {LRM}Vous avez supprimé ce message.\r\n"
    ),
    "android-spanish-12h": (
        f"13/2/24, 8:15{NNBSP}a.{NNBSP}m. - Los mensajes y las llamadas están cifrados de extremo a extremo.\n"
        f"13/2/24, 8:16{NNBSP}a.{NNBSP}m. - Jan de Vries: When can we paint the hull?\n"
        f"13/2/24, 8:18{NNBSP}a.{NNBSP}m. - Mara: Low water at six.\nBring the ladder.\n"
        f"13/2/24, 8:20{NNBSP}a.{NNBSP}m. - Mara: <Multimedia omitido>\n"
        f"13/2/24, 8:21{NNBSP}a.{NNBSP}m. - Mara: Se eliminó este mensaje.\n"
    ),
    "android-portuguese": (
        "13/02/2024 08:15 - As mensagens e as chamadas são protegidas com a criptografia de ponta a ponta.\n"
        "13/02/2024 08:16 - Jan de Vries: When can we paint the hull?\n"
        "13/02/2024 08:18 - Mara: Low water at six.\nBring the ladder.\n"
        "13/02/2024 08:20 - Mara: <Mídia oculta>\n"
        "13/02/2024 08:21 - Mara: Mensagem apagada\n"
    ),
    "ios-finnish": (
        f"[13.2.2024 klo 8.15.03] Jan de Vries: {LRM}Viestit ja puhelut on suojattu täysin.\r\n"
        "[13.2.2024 klo 8.16.10] Jan de Vries: When can we paint the hull?\r\n"
        "[13.2.2024 klo 8.18.59] Mara: Low water at six.\nBring the ladder.\r\n"
        f"{LRM}[13.2.2024 klo 8.20.00] Mara: {LRM}kuva jätettiin pois\r\n"
        f"[13.2.2024 klo 8.21.00] Mara: {LRM}Tämä viesti poistettiin.\r\n"
    ),
    "ios-chinese": (
        f"[2024/2/13 上午8:15:03] Jan de Vries: {LRM}訊息和通話經端對端加密。\r\n"
        "[2024/2/13 上午8:16:10] Jan de Vries: When can we paint the hull?\r\n"
        "[2024/2/13 上午8:18:59] Mara: Low water at six.\nBring the ladder.\r\n"
        f"{LRM}[2024/2/13 上午8:20:00] Mara: {LRM}圖片已略去\r\n"
        "[2024/2/13 上午8:21:00] Mara: 此訊息已刪除\r\n"
    ),
    "android-korean": (
        "2024. 2. 13. 오전 8:15 - 메시지와 통화는 종단간 암호화됩니다.\n"
        "2024. 2. 13. 오전 8:16 - Jan de Vries: When can we paint the hull?\n"
        "2024. 2. 13. 오전 8:18 - Mara: Low water at six.\nBring the ladder.\n"
        "2024. 2. 13. 오전 8:20 - Mara: <미디어 파일을 제외한 내용>\n"
        "2024. 2. 13. 오전 8:21 - Mara: 삭제된 메시지입니다\n"
    ),
    "android-arabic": (
        "\u200f١٣\u200f/٢\u200f/٢٠٢٤، ٨:١٥ ص - الرسائل والمكالمات مشفرة تمامًا بين الطرفين.\n"
        "\u200f١٣\u200f/٢\u200f/٢٠٢٤، ٨:١٦ ص - Jan de Vries: When can we paint the hull?\n"
        "\u200f١٣\u200f/٢\u200f/٢٠٢٤، ٨:١٨ ص - Mara: Low water at six.\nBring the ladder.\n"
        "\u200f١٣\u200f/٢\u200f/٢٠٢٤، ٨:٢٠ ص - Mara: <تم استبعاد الوسائط>\n"
        "\u200f١٣\u200f/٢\u200f/٢٠٢٤، ٨:٢١ ص - Mara: تم حذف هذه الرسالة\n"
    ),
    "android-iso": (
        "2024-02-13 08:15 - Meldinger og anrop er beskyttet med ende-til-ende-kryptering.\n"
        "2024-02-13 08:16 - Jan de Vries: When can we paint the hull?\n"
        "2024-02-13 08:18 - Mara: Low water at six.\nBring the ladder.\n"
        "2024-02-13 08:20 - Mara: <Medier er utelatt>\n"
        "2024-02-13 08:21 - Mara: null\n"
    ),
}


def _said(id_: int, who: str, text: Any, at: int, **more: Any) -> dict[str, Any]:
    """Return a message as Telegram Desktop writes it. at: minutes after 2024-02-13 08:00 UTC."""
    message = {"id": id_, "type": "message", "date": f"2024-02-13T09:{at:02}:00", "from": who}
    message |= {"date_unixtime": str(1707811200 + 60 * at), "from_id": "user11" if who == "Mara" else "user22"}
    return message | {"text": text, "text_entities": []} | more


TELEGRAM_CHAT: dict[str, Any] = {
    "name": "Jan de Vries",
    "type": "personal_chat",
    "id": 22,
    "messages": [
        {"id": 1, "type": "service", "date": "2024-02-13T09:00:00", "actor": "Jan de Vries", "action": "phone_call"},
        _said(2, "Jan de Vries", "Is the mooring paid?", 1),
        _said(
            3, "Mara", ["Paid it on Friday, see ", {"type": "link", "text": "https://harbour.example"}, " for 2024."], 2
        ),
        _said(4, "Mara", "Receipt is in the tin.", 3),
        _said(5, "Mara", "Storm warning for tonight", 4, forwarded_from="Coastguard"),
        _said(6, "Mara", "", 5, photo="photos/1.jpg"),
        _said(7, "Mara", "A cat picture", 6, via_bot="@pic"),
    ],
}
TELEGRAM_ALL: dict[str, Any] = {
    "about": 'Here is the data you requested. "Quoted".',
    "personal_information": {"user_id": 11, "first_name": "Mara", "last_name": "", "phone_number": "+1 555"},
    "contacts": {"about": "x", "list": [{"user_id": 22, "first_name": "Jan"}]},
    "chats": {
        "about": "y",
        "list": [
            TELEGRAM_CHAT,
            {"name": "Weather", "type": "bot_chat", "id": 33, "messages": [_said(1, "Mara", "Harlingen please", 1)]},
            {"type": "saved_messages", "id": 11, "messages": [_said(1, "Mara", "Order two litres of primer", 9)]},
        ],
    },
    "left_chats": {"about": "z", "list": []},
}

DISCORD = {
    "README.txt": "This is your data.",
    "account/user.json": '{"id": "11", "username": "mara"}',
    "messages/index.json": '{"123456": "general"}',
    "messages/c123456/channel.json": '{"id": "123456", "type": 0}',
    "messages/c123456/messages.json": json.dumps(
        [
            {"ID": 3, "Timestamp": "2024-02-13 08:20:00", "Contents": "", "Attachments": "https://cdn.example/a.png"},
            {"ID": 2, "Timestamp": "2024-02-13 08:02:00", "Contents": "Thanks  <@!22> <:anchor:99>", "Attachments": ""},
            {
                "ID": 1,
                "Timestamp": "2024-02-13 08:01:00",
                "Contents": "> he said\nThe pump is fixed.",
                "Attachments": "",
            },
        ]
    ),
    "messages/c777777/messages.csv": (
        "ID,Timestamp,Contents,Attachments\r\n"
        '4,2020-08-25 22:54:05.726000+00:00,"Two lines,\nwith a comma",\r\n'
        "5,2020-08-25 23:54:05.726000+00:00,Later on ||the secret||,\r\n"
    ),
}

SLACK = {
    "users.json": json.dumps(
        [
            {"id": "U1", "name": "mara", "profile": {"real_name": "Mara Voss", "email": "mara@harbour.example"}},
            {"id": "U2", "name": "jan", "profile": {"real_name": "Jan de Vries"}},
        ]
    ),
    "channels.json": '[{"id": "C1", "name": "yard"}]',
    "yard/2024-02-13.json": json.dumps(
        [
            {"type": "message", "user": "U2", "text": "Who has the key?", "ts": "1707811260.000100"},
            {"type": "message", "user": "U1", "text": "<@U2> on the hook &amp; locked", "ts": "1707811320.000100"},
            {"type": "message", "user": "U1", "text": "See <https://harbour.example|the list>.", "ts": "1707811380.1"},
            {"type": "message", "subtype": "channel_join", "user": "U1", "text": "<@U1> joined", "ts": "1707811400.1"},
            {"type": "message", "subtype": "bot_message", "bot_id": "B1", "text": "Deployed", "ts": "1707811410.1"},
            {
                "type": "message",
                "user": "U2",
                "text": "Crane on Monday?",
                "ts": "1707811500.1",
                "thread_ts": "1707811500.1",
            },
        ]
    ),
    "yard/2024-02-14.json": json.dumps(
        [
            {
                "type": "message",
                "user": "U1",
                "text": "Monday at nine.",
                "ts": "1707850000.1",
                "thread_ts": "1707811500.1",
            }
        ]
    ),
}


def _signal(at: str, sender: str, body: str, **more: Any) -> str:
    row = {"date": f"2024-02-13T{at}", "sender": sender, "body": f"{body}  ", "quote": "", "sticker": None}
    return json.dumps(row | {"reactions": [], "attachments": []} | more, ensure_ascii=False) + "\n"


SIGNAL = {
    "style.css": "",
    "Jan/data.json": (
        _signal("08:01:00", "Jan", "Did the sail come back?")
        + _signal("08:02:00", "Me", "Came back patched. 🎉", quote="\n\n> Did the sail come back?\n\n")
        + _signal("08:03:00", "Me", "Good stitching.")
        + _signal("08:04:00", "Me", "", attachments=[{"name": "a.jpg", "path": "media/a.jpg"}])
        + _signal("08:05:00", "Me", "Outgoing voice call (unanswered)")
        + _signal("08:06:00", "Me", "gone", deleted=True)
    ),
    "Jan/chat.md": "[2024-02-13 08:01:00] Jan: Did the sail come back?  \n\n",
    "Ida/chat.md": (
        "[2024-02-13 09:01:00] Ida: Soup?  \n\n"
        "[2024-02-13 09:02:00] Me: \n\n> Soup?\n\nYes please.\nWith bread.  \n(- Ida: 👍 -)\n\n"
        "[2024-02-13 09:30:00] Me: Look ![a b.jpg](./media/a%20b.jpg)  \n\n"
        "[2024-02-13 09:40:00] Me: (This message was deleted)\n\n"
    ),
}


def _node(id_: str, parent: str | None, role: str, text: str, children: list[str], **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    message = {"author": {"role": role}, "create_time": 1707811260.5, "content": content, "recipient": "all"}
    return {"id": id_, "parent": parent, "children": children, "message": message | more}


CHATGPT_CONVERSATION: dict[str, Any] = {
    "title": "Anodes",
    "create_time": 1707811260.0,
    "mapping": {
        "root": {"id": "root", "parent": None, "children": ["a"], "message": None},
        "a": _node("a", "root", "user", "Wich anode for brackish water?", ["b"]),
        "a2": _node("a2", "root", "user", "Which anode for brackish water?", ["b2"]),
        "b": _node("b", "a", "assistant", "Magnesium.", []),
        "b2": _node("b2", "a2", "assistant", "Aluminium is the usual choice.", ["t"]),
        "t": _node("t", "b2", "assistant", "search()", ["c"], recipient="web"),
        "c": _node("c", "t", "user", "And how often do I swap it?\n```\nlog\n```", ["h"]),
        "h": _node("h", "c", "user", "Hidden", ["d"], metadata={"is_visually_hidden_from_conversation": True}),
        "d": _node("d", "h", "assistant", "Every spring.", []),
    },
    "current_node": "d",
}
CHATGPT = {
    "chat.html": "<html></html>",
    "conversations-000.json": json.dumps([CHATGPT_CONVERSATION]),
    "conversations-001.json": json.dumps([{"title": "New", "mapping": {"x": _node("x", None, "user", "Hello!", [])}}]),
    "export_manifest.json": "{}",
    "user.json": "{}",
}


def _turn(id_: str, parent: str, sender: str, text: str, minute: int) -> dict[str, Any]:
    turn = {"uuid": id_, "sender": sender, "text": text, "created_at": f"2024-02-13T08:{minute:02}:00.123456Z"}
    return turn | {"content": [{"type": "text", "text": text}], "parent_message_uuid": parent, "attachments": []}


CLAUDE = {
    "conversations.json": json.dumps(
        [
            {
                "uuid": "1",
                "name": "Knots",
                "account": {"uuid": "9"},
                "chat_messages": [
                    _turn("a", "0", "human", "Whats a good knot for a fender", 1),
                    _turn("b", "a", "assistant", "A bowline.", 2),
                    _turn("a2", "0", "human", "What's a good knot for a fender?", 3),
                    _turn("b2", "a2", "assistant", "A clove hitch, doubled.", 4),
                    _turn("c2", "b2", "human", "Doubled how?", 5),
                ],
            },
            {"uuid": "2", "name": "", "chat_messages": [{"sender": "human", "text": "Old export, no blocks."}]},
        ]
    ),
    "users.json": '[{"uuid": "9"}]',
    "projects.json": "[]",
}

NOTES = {
    ".obsidian/templates.json": '{"folder": "Forms"}',
    ".trash/old.md": "Thrown away.",
    "Forms/day.md": "How was the day?",
    "Templates/x.md": "Also a form.",
    "img.png": "",
    "Boat.md": (
        "---\ncreated: 2024-02-13T08:00:00\ntags: [boat]\n---\n# Boat\n\n#yard #todo\n\n"
        "She leaks at the [[Stern gland|gland]], see [the log](https://x.example/a_(b)) and [[Pump]].\n\n"
        "```sh\nrm -rf bilge\n```\n\n> Someone else said this.\n\n![[photo.png]]\n\n"
        "## Paint\n\n- [ ] scrape ==twice==\n- [x] prime ^b1\n\n%%private%%\n"
    ),
    "2024-02-14.md": "Wind all day. Slept badly.\n\n[ref]: https://x.example\n",
    "plain.txt": "Just text.\n\nIn two paragraphs.\n",
}


def folder(where: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = where / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    return where


def zipped(where: Path, files: Mapping[str, str], inside: str = "") -> Path:
    """Make a zip. inside: a folder in it, as when a person packs an export again."""
    where.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(where / "export.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(f"{inside}{name}", text)
            packed.writestr(f"__MACOSX/{inside}._{name.split('/')[-1]}", "\0")
    return where / "export.zip"


def repository(where: Path, *messages: str, author: str = "Mara <mara@harbour.example>") -> Path:
    """Make a repository with a commit for each message, or add them to it."""
    where.mkdir(parents=True, exist_ok=True)
    git(where, "init", "-q")
    for message in messages:
        git(where, "commit", "-q", "--allow-empty", "--author", author, "--cleanup=verbatim", "-m", message)
    return where


def git(where: Path, *arguments: str) -> None:
    who = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in (("NAME", "T"), ("EMAIL", "t@x"))
    }
    date = {"GIT_AUTHOR_DATE": "2024-02-13T08:00:00+01:00", "GIT_COMMITTER_DATE": "2024-02-13T08:00:00+01:00"}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ["PATH"]}
    subprocess.run(["git", "-C", str(where), *arguments], check=True, env=settings | who | date)


Source = Callable[[Path], Path]  # makes a source in a folder, and returns where it lies


def _file(name: str, text: str) -> Source:
    return lambda where: folder(where, {name: text}) / name


def _folder(files: Mapping[str, str]) -> Source:
    return lambda where: folder(where, files)


def _zip(files: Mapping[str, str], inside: str = "") -> Source:
    return lambda where: zipped(where, files, inside)


# name of the format → its sources
SOURCES: dict[str, dict[str, Source]] = {
    "whatsapp": {
        **{locale: _file("WhatsApp Chat with Jan.txt", text) for locale, text in WHATSAPP.items()},
        "zip": _zip({"_chat.txt": WHATSAPP["ios-english-us"], "00000001-PHOTO.jpg": ""}),
        "folder": _folder({"_chat.txt": WHATSAPP["ios-french"]}),
    },
    "telegram": {
        "chat": _file("result.json", json.dumps(TELEGRAM_CHAT, indent=1)),
        "all": _file("result.json", json.dumps(TELEGRAM_ALL, indent=1)),
        "folder": _folder({"result.json": json.dumps(TELEGRAM_CHAT), "photos/1.jpg": ""}),
    },
    "discord": {"folder": _folder(DISCORD), "zip": _zip(DISCORD), "packed again": _zip(DISCORD, "package/")},
    "slack": {"folder": _folder(SLACK), "zip": _zip(SLACK), "packed again": _zip(SLACK, "export/")},
    "signal": {
        "folder": _folder(SIGNAL),
        "data.json": _file("data.json", SIGNAL["Jan/data.json"]),
        "chat.md": _file("chat.md", SIGNAL["Ida/chat.md"]),
    },
    "chatgpt": {
        "parts": _folder(CHATGPT),
        "zip": _zip(CHATGPT),
        "file": _file("conversations.json", CHATGPT["conversations-000.json"]),
        "renamed": _file("my chats.json", CHATGPT["conversations-000.json"]),
    },
    "claude": {
        "folder": _folder(CLAUDE),
        "zip": _zip(CLAUDE),
        "file": _file("conversations.json", CLAUDE["conversations.json"]),
    },
    "notes": {
        "vault": _folder(NOTES),
        "markdown": _file("Boat.md", NOTES["Boat.md"]),
        "text": _file("plain.txt", NOTES["plain.txt"]),
        "vault with git": lambda where: repository(folder(where, NOTES), "Backup"),
    },
    "git": {
        "repository": lambda where: repository(where, "Mend the pump"),
        "with a readme": lambda where: repository(folder(where, {"README.md": "# Pump"}), "Mend the pump"),
    },
}
