"""Conversations for other programs: messages as JSON in OpenAI's form, and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dps_local.chat.messages import Message
from dps_local.conversations.conversation import Conversation, without_tokens


def as_openai(model: str, gamma: str, messages: Sequence[Message]) -> dict[str, Any]:
    """Return messages of role and content alone, as chat programs exchange them."""
    return {"model": model, "gamma": gamma, "messages": without_tokens(messages)}


def as_markdown(conversation: Conversation, messages: Sequence[Message]) -> str:
    """Return a page with the title, and each message under who said it."""
    who = {"system": "System", "user": "You", "assistant": conversation.setup.model}
    said = [f"## {who[message['role']]}\n\n{message['content'].strip()}\n" for message in messages]
    return "\n".join([f"# {conversation.title}\n", *said])
