"""`KeptChat`: a session whose turns are kept as it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from dps_local.chat.messages import exchanges
from dps_local.chat.session import Session
from dps_local.conversations.conversation import Conversation, KeptTurn
from dps_local.conversations.conversation_store import ChangedError, ConversationStore
from dps_local.conversations.setup import Setup
from dps_local.engine.stream import common
from dps_local.errors import StorageError
from dps_local.system.progress import Notice


class KeptChat:
    """Writes what changes: a question when it is asked, a turn when it is finished, and what is taken back.

    conversation: that is gone on with, None for a new one. kept: its turns in the store, as far as they hold for this
    setup. notice: is told when something prevents a chat from being kept; it goes on without.
    """

    def __init__(
        self,
        store: ConversationStore,
        session: Session,
        setup: Setup,
        notice: Notice,
        conversation: Conversation | None = None,
        kept: Sequence[KeptTurn] = (),
    ) -> None:
        self.store, self.session, self.setup, self.notice = store, session, setup, notice
        self.conversation, self._kept = conversation, list(kept)
        self.on = True  # until it is forgotten

    def asked(self, question: str) -> None:
        """Keep a question before it is answered."""
        self._write([*self._turns(), KeptTurn(question, None)])

    def update(self) -> None:
        """Keep the session's turns as they are now."""
        if (turns := self._turns()) != self._kept:
            self._write(turns)

    def begin(self) -> None:
        """Let what comes next be another conversation."""
        self.conversation, self._kept = None, []

    def forget(self) -> None:
        """Remove the conversation, and keep nothing any more."""
        self.on = False
        if self.conversation:
            self.store.remove([self.conversation])
        self.begin()

    def _turns(self) -> list[KeptTurn]:
        _, pairs = exchanges(self.session.messages())
        return [KeptTurn(question["content"], answer) for question, answer in pairs]

    def _write(self, turns: list[KeptTurn]) -> None:
        if not self.on:
            return
        try:
            self._change(turns)
        except StorageError as exc:
            self.on = False
            self.notice(f"{exc}; this conversation is not kept any more")
        except ChangedError as changed:
            if changed.removed:
                self.on = False
                self.notice("this conversation was removed meanwhile, and is not kept any more")
                return
            self.begin()
            self._write(turns)
            if self.conversation:
                self.notice(f"another chat has gone on with this conversation: yours is kept as {self.conversation.id}")

    def _change(self, turns: list[KeptTurn]) -> None:
        if self.conversation:
            n = common(self._kept, turns)
            self.conversation = self.store.change(self.conversation, self.setup, n, turns[n:])
        elif turns:
            self.conversation = self.store.begin(self.setup, turns)
        self._kept = turns
        if not turns:
            self.begin()
