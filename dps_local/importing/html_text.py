"""HTML mail as the plain text that a mail program would have written beside it: quotes behind ">", a signature below
"-- "."""

from __future__ import annotations

import re
from html.parser import HTMLParser

MOST_CHARACTERS = 500_000  # of HTML that are read
_HIDDEN = {"script", "style", "head", "title", "template"}
_LINES = {"div", "tr", "li", "ul", "ol", "table", "section", "article", "blockquote", "pre", "hr"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
_VOID = {"br", "img", "hr", "input", "meta", "link", "wbr", "area", "base", "col", "embed", "source", "track", "param"}
_SIGNATURES = {"gmail_signature", "moz-signature", "signature"}


def html_text(html: str) -> str:
    """Return the visible text of HTML, never raising."""
    reader = _Reader()
    reader.feed(html[:MOST_CHARACTERS])
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines = [""]
        self.open: list[tuple[str, str]] = []  # elements, and what they are: "hidden", "quote" or ""
        self.hidden = self.depth = 0
        self.space = False  # whether one is due before the next word

    def text(self) -> str:
        return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in self.lines)).strip("\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self._line()
        if tag in _VOID:
            return
        what = "hidden" if tag in _HIDDEN else "quote" if tag == "blockquote" else ""
        self._break(tag)
        self.open.append((tag, what))
        self.hidden += what == "hidden"
        self.depth += what == "quote"
        self._break(tag)
        names = {name.lower() for key, value in attrs if key in ("class", "id") for name in (value or "").split()}
        if names & _SIGNATURES and not self.depth:
            self._fresh()
            self.lines[-1] = "--"
            self._line()
        if tag == "li":
            self._write("- ")

    def handle_endtag(self, tag: str) -> None:
        if not any(name == tag for name, _ in self.open):  # was never opened
            return
        self._break(tag)
        while True:
            name, what = self.open.pop()
            self.hidden -= what == "hidden"
            self.depth -= what == "quote"
            if name == tag:
                break
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if any(tag == "pre" for tag, _ in self.open[-3:]):
            for i, line in enumerate(data.split("\n")):
                if i:
                    self._line()
                self._write(line)
            return
        words = data.split()
        if data[:1].isspace():
            self.space = True
        for i, word in enumerate(words):
            self._write(f" {word}" if (i or self.space) and self.lines[-1].strip("> ") else word)
            self.space = False
        self.space = self.space or (bool(words) and data[-1:].isspace())

    def _write(self, text: str) -> None:
        if not self.lines[-1] and self.depth:
            self.lines[-1] = ">" * min(self.depth, 9) + " "
        self.lines[-1] += text

    def _line(self) -> None:
        self.lines.append("")
        self.space = False

    def _fresh(self) -> None:
        if self.lines[-1].strip():
            self._line()

    def _break(self, tag: str) -> None:
        if tag in _LINES or tag in _PARAGRAPHS:
            self._fresh()
        if tag in _PARAGRAPHS and len(self.lines) > 1 and self.lines[-2].strip():
            self._line()
