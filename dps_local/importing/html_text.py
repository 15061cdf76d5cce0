"""HTML mail as the plain text that a mail program would have written beside it: quotes behind ">", a signature below
"-- "."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

MOST_CHARACTERS = 300_000  # of HTML that are read
_COMMENT = re.compile(r"(?s)<!--.*?(?:-->|\Z)|<[!?][^>]*(?:>|\Z)")  # the parser takes long for those without an end
_HIDDEN = {"script", "style", "head", "title", "template"}
_LINES = {"div", "tr", "li", "ul", "ol", "table", "section", "article", "blockquote", "pre", "hr"}
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6"}
_VOID = {"br", "img", "hr", "input", "meta", "link", "wbr", "area", "base", "col", "embed", "source", "track", "param"}
_SIGNATURES = {"gmail_signature", "moz-signature", "signature"}


def html_text(html: str) -> str:
    """Return the visible text of HTML, never raising."""
    reader = _Reader()
    whole, end, rest = _COMMENT.sub("", html[:MOST_CHARACTERS]).rpartition(">")
    reader.feed(whole + end + rest.replace("<", "&lt;"))
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.line: list[str] = []  # words of the line at hand
        self.open: list[tuple[str, str]] = []  # elements, and what they are: "hidden", "quote" or ""
        self.names: Counter[str] = Counter()  # of those
        self.hidden = self.depth = 0
        self.space = False  # whether one is due before the next word

    def text(self) -> str:
        self._line()
        return re.sub(r"\n{3,}", "\n\n", "\n".join(self.lines)).strip("\n")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self._line()
        if tag in _VOID:
            return
        self._break(tag)
        self._enter(tag)
        names = {name.lower() for key, value in attrs if key in ("class", "id") for name in (value or "").split()}
        if names & _SIGNATURES and not self.depth:
            self._fresh()
            self._write("--")
            self._line()
        if tag == "li":
            self._write("- ")

    def _enter(self, tag: str) -> None:
        what = "hidden" if tag in _HIDDEN else "quote" if tag == "blockquote" else ""
        self.open.append((tag, what))
        self.names[tag] += 1
        self.hidden += what == "hidden"
        self.depth += what == "quote"

    def handle_endtag(self, tag: str) -> None:
        if not self.names[tag]:  # was never opened
            return
        self._break(tag)
        name = ""
        while name != tag:
            name, what = self.open.pop()
            self.names[name] -= 1
            self.hidden -= what == "hidden"
            self.depth -= what == "quote"

    def handle_data(self, data: str) -> None:
        if self.hidden:
            return
        if self.names["pre"]:
            for i, line in enumerate(data.split("\n")):
                if i:
                    self._line()
                self._write(line)
            return
        self.space |= data[:1].isspace()
        for word in data.split():
            self._write(f" {word}" if self.space and self.line else word)
            self.space = True
        self.space = data[-1:].isspace()

    def _write(self, text: str) -> None:
        if text:
            self.line += [">" * min(self.depth, 9) + " ", text] if self.depth and not self.line else [text]

    def _line(self) -> None:
        self.lines.append("".join(self.line).rstrip())
        self.line = []
        self.space = False

    def _fresh(self) -> None:
        if self.line:
            self._line()

    def _break(self, tag: str) -> None:
        if tag in _LINES or tag in _PARAGRAPHS:
            self._fresh()
        if tag in _PARAGRAPHS and self.lines and self.lines[-1]:
            self._line()
