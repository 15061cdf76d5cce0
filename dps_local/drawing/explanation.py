"""Explanations for people: in the terminal, and as one HTML page. They are tinted by the colour scale of head maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dps_local.chat.explanation import ExplainedToken, Explanation
from dps_local.drawing.colour import TONES, Floats, colour_limit, colour_of, page_colours, text_colour
from dps_local.drawing.console import ConsoleText, FirstFitting, has_colour
from dps_local.drawing.page import write_page
from dps_local.drawing.text import counted, printable, shortened

TABLE_ROWS = 12  # tokens, and heads, in a table of the terminal
NAMED_HEADS = 3  # of a token that are named
MIN_LIMIT = 0.1  # nats, where the colour scale ends at the soonest: rounding in quantised models shall stay pale
TINT_LIMIT, MIN_TONE = 1.0, 0.05  # nats, and the part of them, where the tint of an answer that comes ends and begins
TINTS = f"orange likelier, blue less likely, full at {TINT_LIMIT:g} nat"
VISIBLE_SPACES = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})
COLOUR_LEGEND = """\
orange: likelier with steering, blue: less likely; underlined: the plain model
would rather have said something else; ↵ line end, ␣ space"""
MARK_LEGEND = """\
[+likelier with steering] by over {:.2g} nats, [++likelier] by over {:.2g},
[-less likely], [--less likely]; ↵ line end, ␣ space"""
SHARE_LEGEND = "a head's number: the part of the shift that goes when it alone is left out"


def tint(shift: float | None) -> str:
    """The style of a token that comes in an answer; its shift is in nats. None: it was not moved, or nobody knows."""
    tone = float(np.clip((shift or 0) / TINT_LIMIT, -1, 1))
    if abs(tone) < MIN_TONE:
        return ""
    ground = colour_of(tone)
    return f"{text_colour(ground)} on {ground}"


def tinted_answer(explanation: Explanation) -> RenderableType:
    """The answer with each token tinted by its shift, or marked where there is no colour; the tokens that were moved
    most; and what each head did in total."""
    return _ExplanationDrawing(explanation)


def write_explanation_html(explanation: Explanation, path: Path) -> None:
    """One page that needs nothing but itself: the tinted answer, its tokens and the heads."""
    write_page(path, "explanation.html", _page(explanation))


# --- words ---


@dataclass(frozen=True, slots=True)
class _TokenRow:
    """A token as a table shows it; probabilities are among the plausible tokens."""

    number: int
    token: str
    shift: str
    plain: str
    steered: str
    instead: str
    odds: str  # of what it is instead of, plain and steered
    heads: str

    @classmethod
    def of(cls, number: int, token: ExplainedToken, heads: int = NAMED_HEADS) -> _TokenRow:
        other, all_p = token.replaced, token.p_plausible
        return cls(
            number,
            _visible(token.text),
            f"{token.shift:+.3f}",
            _percent(token.p_plain / all_p),
            _percent(token.p_steered),
            _visible(other.text) if other else "",
            f"{_percent(other.p_plain / all_p)} → {_percent(other.p_steered)}" if other else "",
            ", ".join(f"L{s.layer}H{s.head} {s.share:+.3f}" for s in token.heads[:heads]),
        )


def _visible(text: str) -> str:
    """A token by itself. It may be a part of a character, which has no text."""
    return shortened(printable(text.translate(VISIBLE_SPACES)), 16) or "\N{REPLACEMENT CHARACTER}"


def _running(text: str) -> str:
    """A token within its answer."""
    if text.isspace():
        text = text.replace(" ", "␣")
    return "↵\n".join(map(printable, text.replace("\t", "⇥").split("\n")))


def _percent(p: float) -> str:
    return f"{100 * p:.1f} %" if p >= 0.0005 else "< 0.1 %"


def _shifts(explanation: Explanation) -> Floats:
    return np.array([token.shift for token in explanation.tokens])


def shift_limit(tokens: Sequence[ExplainedToken]) -> float:
    """The end of the colour scale, in nats."""
    return max(colour_limit(np.array([token.shift for token in tokens])), MIN_LIMIT)


def _limit(explanation: Explanation) -> float:
    return shift_limit(explanation.tokens)


def _tones(explanation: Explanation) -> Floats:
    """Shifts as places on the scale, -1 to 1."""
    return np.asarray(np.clip(_shifts(explanation) / _limit(explanation), -1, 1))


def _rows(explanation: Explanation, heads: int = NAMED_HEADS) -> list[_TokenRow]:
    return [_TokenRow.of(i, token, heads) for i, token in enumerate(explanation.tokens, start=1)]


def _most_moved(explanation: Explanation, heads: int = NAMED_HEADS) -> list[_TokenRow]:
    """The rows of tokens that were moved, the one that was moved most first."""
    shifts, rows = np.abs(_shifts(explanation)), _rows(explanation, heads)
    return [rows[i] for i in np.argsort(-shifts, kind="stable") if shifts[i] > 0]


def _about(explanation: Explanation) -> str:
    heads, left_out = explanation.steered, len(explanation.heads)
    if explanation.mode == "contrast":
        mask = f", β = {explanation.beta:g}" if explanation.beta else ""
        return f"contrast with {counted(heads, 'muted head')}, γ = {explanation.gamma}{mask}"
    only = f"; shares of the {left_out} with the largest weights" if left_out < heads else ""
    return f"{counted(heads, 'amplified head')}, γ = {explanation.gamma}{only}"


def _among(explanation: Explanation) -> str:
    return f" among the tokens that β = {explanation.beta:g} leaves" if explanation.beta else ""


# --- terminal ---


@dataclass(frozen=True, slots=True)
class _ExplanationDrawing:
    explanation: Explanation

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield ConsoleText(Text(_about(self.explanation), style="bold"))
        yield Text()
        colour = has_colour(console)
        draw = _tinted if colour else _marked
        toned = zip(self.explanation.tokens, _tones(self.explanation).tolist(), strict=True)
        pieces = (draw(token, tone) for token, tone in toned)
        yield ConsoleText(Text().join(pieces))
        yield Text()
        yield from map(ConsoleText, self._legend(colour))
        if _shifts(self.explanation).any():
            yield FirstFitting([_token_table(self.explanation, heads) for heads in range(NAMED_HEADS, -1, -1)])
            yield _head_table(self.explanation)
        else:
            yield ConsoleText(Text("no token was moved"))

    def _legend(self, colour: bool) -> Iterator[Text]:
        limit = _limit(self.explanation)
        if colour:
            bar = Text().join(Text(" ", Style(bgcolor=colour_of(tone))) for tone in TONES)
            yield Text.assemble(f"shift, nats: {-limit:+.3f} ", bar, f" {limit:+.3f}")
            yield Text(COLOUR_LEGEND, style="dim")
        else:
            yield Text(MARK_LEGEND.format(limit / 3, 2 * limit / 3), style="dim")
        if among := _among(self.explanation):
            yield Text(f"probabilities{among}", style="dim")
        yield Text(SHARE_LEGEND, style="dim")


def _tinted(token: ExplainedToken, tone: float) -> Text:
    ground = colour_of(tone)
    return Text(_running(token.text), Style(color=text_colour(ground), bgcolor=ground, underline=bool(token.replaced)))


def _marked(token: ExplainedToken, tone: float) -> Text:
    text = _running(token.text)
    size = min(int(abs(tone) * 3), 2)
    if not size:
        return Text(text)
    body = text.rstrip("\n")
    return Text(f"[{('+' if tone > 0 else '-') * size}{body}]{text[len(body) :]}")


def _token_table(explanation: Explanation, heads: int) -> Table:
    table = _empty_table("#", "<token", "shift", "plain", "steered", "<instead of", *["<heads"] * (heads > 0))
    for row in _most_moved(explanation, heads)[:TABLE_ROWS]:
        cells = [str(row.number), row.token, row.shift, row.plain, row.steered, row.instead]
        _add(table, cells + [row.heads] * (heads > 0))
    return table


def _head_table(explanation: Explanation) -> Table:
    table = _empty_table("<head", "moved in total, nats", "net")
    for total in explanation.totals()[:TABLE_ROWS]:
        _add(table, [f"L{total.layer}H{total.head}", f"{total.moved:.3f}", f"{total.net:+.3f}"])
    return table


def _empty_table(*columns: str) -> Table:
    """Return a table; columns whose name begins with < are flush left."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        table.add_column(name.removeprefix("<"), justify="left" if name[0] == "<" else "right", no_wrap=True)
    return table


def _add(table: Table, cells: Sequence[str]) -> None:
    table.add_row(*(ConsoleText(Text(cell)) for cell in cells))


# --- HTML ---


def _page(explanation: Explanation) -> dict[str, object]:
    steps = ((_tones(explanation) + 1) * 10).round().astype(int).tolist()
    rows = _rows(explanation)
    return page_colours() | {
        "model": printable(explanation.model),
        "about": _about(explanation),
        "among": _among(explanation),
        "question": "\n".join(map(printable, explanation.question.split("\n"))),
        "answer": list(zip((_running(token.text) for token in explanation.tokens), steps, rows, strict=True)),
        "limit": f"{_limit(explanation):.3f}",
        "most": _most_moved(explanation)[: 2 * TABLE_ROWS],
        "rows": rows,
        "totals": explanation.totals(),
    }
