"""Claude: the zip or folder of claude.ai's "Export data", or its conversations.json alone.

Conversations are {uuid, name, chat_messages: [{uuid, sender, text, content: [{type, text}], created_at}]}, with
parent_message_uuid since 2025; exports name no current branch, which is the one of the newest message. Attached files
and pasted texts lie in attachments, and are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dps_local.importing.assistant_export import AssistantExport, Turn, branch
from dps_local.importing.conversation import from_iso


class Claude(AssistantExport):
    name = "claude"
    looked_for = "Claude conversations (the export, or conversations.json)"
    title = "Claude"
    key = "chat_messages"

    def turns(self, conversation: dict[str, Any], dropped: Counter[str]) -> Iterator[Turn]:
        for message in _shown(conversation.get("chat_messages")):
            own = message.get("sender") == "human"
            if text := _text(message):
                yield Turn(text, own, from_iso(message.get("created_at")))
            elif own:
                dropped["media"] += 1


def _shown(listed: object) -> list[dict[str, Any]]:
    """Return the messages of the branch of the newest; all where they name no parents."""
    messages = [message for message in listed if isinstance(message, dict)] if isinstance(listed, list) else []
    if not any(message.get("parent_message_uuid") for message in messages):
        return messages
    newest = max(messages, key=lambda message: str(message.get("created_at")))
    return branch({str(m.get("uuid")): m for m in messages}, newest.get("uuid"), "parent_message_uuid")


def _text(message: dict[str, Any]) -> str:
    """Return the text of a message: that of its blocks, which old exports have not."""
    content, text = message.get("content"), message.get("text")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    parts = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    return ("\n".join(parts) or (text if isinstance(text, str) else "")).strip()
