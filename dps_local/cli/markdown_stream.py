"""`MarkdownStream`: an answer drawn as it comes, block by block; what is drawn stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment
from rich.styled import Styled

from dps_local.cli.terminal import Terminal, without_controls

# HTML and definitions of links would be left out of what is shown
PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
CODE_THEME = "ansi_dark"  # the terminal's own colours, without a ground


class MarkdownStream:
    """Draws the blocks of a text, each once: a block when the next one begins, an item of a list likewise."""

    def __init__(self, terminal: Terminal, style: str = "") -> None:
        self.terminal, self.style = terminal, style
        self._lines: list[str] = []  # that are whole, and not drawn
        self._rest = ""  # of a line
        self._in_list = self._begun = False  # what was drawn last is an item of a list; anything was

    def write(self, text: str) -> None:
        """Add a piece of the text, and draw what it finishes."""
        *lines, self._rest = (self._rest + without_controls(text)).split("\n")  # a \r would end a line, too
        if lines:
            self._lines += lines
            self._draw_finished()

    def close(self) -> None:
        """Draw what is left at the end of the text."""
        self._lines.append(self._rest)
        self._rest = ""
        self._draw_finished()
        self._draw(len(self._lines), in_list=False)

    def _draw_finished(self) -> None:
        while (tokens := PARSER.parse("\n".join(self._lines))) and (end := _first_end(tokens)):
            self._draw(*end)

    def _draw(self, n_lines: int, in_list: bool) -> None:
        """Draw the first lines; in_list: they are an item, and another one follows."""
        text = "\n".join(self._lines[:n_lines])
        del self._lines[:n_lines]
        if not text.strip():
            return
        if self._begun and not self._in_list:
            self.terminal.write("\n")
        self.terminal.show(Styled(_Block(text), self.style))
        self._begun, self._in_list = True, in_list


def _first_end(tokens: Sequence[Token]) -> tuple[int, bool] | None:
    """Return the line where the first block, or item of a list, ends, as the next one begins; and whether both are of
    one list. None where nothing follows yet."""
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map]
    of_list = tokens[: next(i for i, token in enumerate(tokens) if token.level == 0 and token.nesting <= 0)]
    items = [token.map[0] for token in of_list if token.type == "list_item_open" and token.level == 1 and token.map]
    if len(items) > 1:
        return items[1], True
    return (starts[1], False) if len(starts) > 1 else None


class _Block(Markdown):
    """Markdown in which a line ends where it was ended, and links show where they lead."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code_theme=CODE_THEME, hyperlinks=False)
        self.parsed = PARSER.parse(text)
        for token in self.parsed:
            for child in token.children or []:
                if child.type == "softbreak":
                    child.type = "hardbreak"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw without the spaces and empty lines around, which would be copied with the text."""
        lines = [*map(_trimmed, Segment.split_lines(super().__rich_console__(console, options)))]  # type: ignore[arg-type]
        full = [i for i, line in enumerate(lines) if line]
        for line in lines[full[0] : full[-1] + 1] if full else []:
            yield from line
            yield Segment.line()


def _trimmed(line: list[Segment]) -> list[Segment]:
    while line and not line[-1].text.rstrip():
        line = line[:-1]
    return [*line[:-1], Segment(line[-1].text.rstrip(), line[-1].style)] if line else []
