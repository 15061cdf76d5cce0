"""What is drawn for people, as tests read it: printed on a console, and as a page."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from rich.console import Console, RenderableType

MAGIC = b"\x89PNG\r\n\x1a\n"


def printed(drawing: RenderableType, width: int = 80, colour: str | None = None, code: str = "utf8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=code, write_through=True)
    look = {"color_system": colour, "force_terminal": colour is not None, "no_color": colour is None}
    console = Console(file=stream, width=width, legacy_windows=False, **look)  # type: ignore[arg-type]
    console.print(drawing)
    return raw.getvalue().decode(code)


def grounds(drawing: RenderableType) -> list[list[str]]:
    """The background colours of each line on a console with colour."""
    console = Console(width=80, color_system="truecolor", force_terminal=True, no_color=False)
    lines = console.render_lines(drawing, pad=False)
    styles = [[segment.style for segment in line if segment.style] for line in lines]
    return [[style.bgcolor.name for style in line if style.bgcolor] for line in styles]


class Page(HTMLParser):
    """Fails on a tag that is closed out of order; keeps tags and text."""

    void = frozenset({"meta", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
