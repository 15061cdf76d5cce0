"""`dps-local chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from dps_local.cli.answer_feedback import AnswerFeedback
from dps_local.cli.conversation import Conversation
from dps_local.cli.keeping import KeepOptions, kept, say_how_to_come_back
from dps_local.cli.loading import load_assistant
from dps_local.cli.options import ChatOptions, ModelOptions, ScoreOptions, answer_option, option_groups
from dps_local.cli.terminal import terminal
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.cached_map import CachedMap
from dps_local.scoring.learned_map import LearnedMap
from dps_local.scoring.options import ScoringOptions


@option_groups
def chat(
    context: typer.Context,
    model: ModelOptions,
    chat: ChatOptions,
    keep: KeepOptions,
    score: ScoreOptions,
    history: Annotated[
        bool,
        answer_option("--history/--no-history", help="Remember what you type for the arrow keys of later chats."),
    ] = True,
) -> None:
    """Chat with a model that is steered to write as you do, where that was measured to help.

    A chat begins with what others' texts tell, where the model has priors. Else a profile's heads are scored on first
    use, which takes minutes; later starts are immediate.
    Without a terminal, questions are read from stdin, one a line; one that fails is said, and ends the run with exit
    code 1 after the others.
    """
    with kept(context, keep, chat.compare) as last:
        chat, score, model = last.as_set_up(chat), last.as_set_up(score), last.as_set_up(model)
        with load_assistant(model, chat.profile, chat.map, chat.settings(model, score), score) as assistant:
            kept_chat = last.chat(assistant)
            talk = Conversation(
                assistant.session,
                terminal,
                chat.n_predict,
                chat.compare,
                person=assistant.prompter.profile.name if assistant.prompter else "",
                history=history,
                markdown=terminal.draws(chat.markdown),
                kept=kept_chat,
                feedback=_feedback(assistant.prompter, score.scoring(model)),
            )
            try:
                if not talk.run():
                    raise typer.Exit(1)
            finally:
                say_how_to_come_back(kept_chat)


def _feedback(prompter: Prompter | None, options: ScoringOptions) -> AnswerFeedback:
    if prompter is None:
        return AnswerFeedback()
    # else the head map would be scored anew for each answer that is kept
    return AnswerFeedback(prompter.profile, before=LearnedMap(CachedMap(prompter, options)).begin)
