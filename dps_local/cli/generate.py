"""`dps-local generate`."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dps_local.chat.explanation import Explanation, steering_of
from dps_local.chat.explanation import explain as explain_answer
from dps_local.chat.session import Session
from dps_local.cli.conversation import Conversation
from dps_local.cli.loading import load_assistant
from dps_local.cli.options import ChatOptions, JsonOption, ModelOptions, ScoreOptions, option_groups
from dps_local.cli.terminal import decode_argument, interruptible, terminal
from dps_local.drawing.explanation import tinted_answer, write_explanation_html


@option_groups
def generate(
    model: ModelOptions,
    chat: ChatOptions,
    score: ScoreOptions,
    prompt: Annotated[
        str | None, typer.Argument(help="The request. Text on stdin comes before it; - or nothing: stdin alone.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how far steering moved each token, and which heads did it.")
    ] = False,
    explain_html: Annotated[
        Path | None, typer.Option("--explain-html", help="Write that as a self-contained page.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer one prompt. With --json: the text, and each token's probability plain, muted and steered.

    --explain decodes the answer once more for each head, and shows what steering did to each token.
    """
    if chat.compare and as_json:
        raise typer.BadParameter("--compare and --json do not go together")
    prompt = _prompt(prompt)
    if not prompt:
        raise typer.BadParameter("the prompt is empty")
    settings = replace(chat.settings(model, score), probs=as_json)
    session = load_assistant(model, chat.profile, chat.map, settings, score).session
    explained = explain or explain_html is not None
    if explained:
        steering_of(session)  # says what is missing before the answer
    if as_json:
        answer = _generate_json(session, prompt, chat.n_predict)
    else:
        markdown = terminal.draws(chat.markdown)
        Conversation(session, terminal, chat.n_predict, chat.compare, markdown=markdown).answer(prompt)
    explanation = _explanation(session, explain_html) if explained and session.turns else None
    if as_json:
        tokens = [asdict(token) for token in explanation.tokens] if explanation else []
        terminal.json(answer | ({"explanation": tokens} if explain else {}))
    elif explain and explanation:
        terminal.show("")
        terminal.show(tinted_answer(explanation))


def _prompt(argument: str | None) -> str:
    """Return what is piped in, and behind it the request of the command line."""
    request = "" if argument is None or argument == "-" else decode_argument(argument)
    piped = "" if request and sys.stdin.isatty() else sys.stdin.read()
    return "\n\n".join(text for text in (piped.strip(), request.strip()) if text)


def _generate_json(session: Session, prompt: str, n_predict: int) -> dict[str, Any]:
    with interruptible(session.cancel):
        answer = list(session.ask(prompt, n_predict))
    tokens = [{key: value for key, value in asdict(token).items() if key != "top"} for token in answer]
    steering, turn = session.steering, session.turns[-1] if session.turns else None
    if turn is None:
        raise KeyboardInterrupt
    gamma = None if steering is None else steering.gamma.value if not steering.gamma.entropy else str(steering.gamma)
    timings = {**asdict(turn.timings), "ttft_ms": turn.timings.ttft_ms}
    return {"text": turn.text, "gamma": gamma or 0, "stop": turn.stop, "tokens": tokens, "timings": timings}


def _explanation(session: Session, html: Path | None) -> Explanation:
    """Explain the answer of a chat; the page is written too, if it is wanted."""
    with terminal.progress("explaining") as progress:
        explanation = explain_answer(session, progress)
    if html:
        write_explanation_html(explanation, html)
        terminal.notice(f"wrote {html}")
    return explanation
