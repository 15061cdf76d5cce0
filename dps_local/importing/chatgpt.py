"""ChatGPT: the zip or folder of "Export data", or its conversations.json alone.

Conversations are trees: {title, current_node, mapping: {id: {message, parent, children}}}; what is shown leads from the
root to current_node. Since 2026 they come in parts, conversations-000.json and so on, with an export_manifest.json that
is not needed: github.com/daugaard47/ChatGPT_Conversations_To_Markdown/pull/23.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from dps_local.importing.assistant_export import AssistantExport, Turn, branch
from dps_local.importing.conversation import since_1970


class ChatGPT(AssistantExport):
    name = "chatgpt"
    looked_for = "ChatGPT conversations (the export, or conversations.json)"
    title = "ChatGPT"
    key = "mapping"

    def turns(self, conversation: dict[str, Any], dropped: Counter[str]) -> Iterator[Turn]:
        mapping = conversation.get("mapping")
        listed = mapping.items() if isinstance(mapping, dict) else ()
        nodes = {id_: node for id_, node in listed if isinstance(node, dict)}
        for node in branch(nodes, conversation.get("current_node") or _newest(nodes), "parent"):
            message = node.get("message")
            if isinstance(message, dict) and (role := _role(message)):
                if text := _text(message.get("content")):
                    yield Turn(text, role == "user", since_1970(message.get("create_time")))
                elif role == "user":
                    dropped["media"] += 1


def _newest(nodes: dict[str, dict[str, Any]]) -> str:
    """Return the id of the last node without children: exports before 2023 name no current one."""
    return next((id_ for id_ in reversed(nodes) if not nodes[id_].get("children")), "")


def _role(message: dict[str, Any]) -> str:
    """Return "user" or "assistant" for what is seen in the conversation, else ""."""
    author, metadata, content = (message.get(key) for key in ("author", "metadata", "content"))
    role = author.get("role") if isinstance(author, dict) else ""
    hidden = isinstance(metadata, dict) and (
        metadata.get("is_visually_hidden_from_conversation") or metadata.get("is_user_system_message")
    )
    kind = content.get("content_type") if isinstance(content, dict) else ""
    if role not in ("user", "assistant") or hidden or kind not in ("text", "multimodal_text"):
        return ""
    return role if message.get("recipient", "all") == "all" else ""  # others are calls of tools


def _text(content: Any) -> str:
    """Return the texts of a content; images and recordings are objects."""
    parts = content.get("parts")
    return "\n".join(part for part in parts if isinstance(part, str)).strip() if isinstance(parts, list) else ""
