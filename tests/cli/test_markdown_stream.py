"""Answers drawn as Markdown: block by block, each once, and no word lost."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program import Program
from screen import PROMPT, Screen
from tiny import write_parrot

from dps_local.cli.markdown_stream import MarkdownStream
from dps_local.cli.terminal import Terminal

Start = Callable[..., Screen]
ANSWER = """\
# Title

Dear **you**,
see [this](http://a.b) & <b>that</b>

- one
- two
  - in two
- three

2. second
3. third

```python
if x:

    y()
```

| a | b |
|---|---|
| 1 | 2 |

> quoted

Kind regards
Mara"""
DRAWN = """\
                 Title

Dear you,
see this (http://a.b) & <b>that</b>

 • one
 • two
    • in two
 • three

 2 second
 3 third

 if x:

     y()

 a  b
 ────
 1  2

▌ quoted

Kind regards
Mara
"""


class Drawing:
    """A stream of Markdown onto a page of 40 columns without colours."""

    def __init__(self) -> None:
        self.page = io.StringIO()
        terminal = Terminal()
        terminal.out.file, terminal.out.width = self.page, 40
        self.stream = MarkdownStream(terminal)

    def drawn(self, *pieces: str) -> str:
        for piece in pieces:
            self.stream.write(piece)
        return self.page.getvalue()

    def all_drawn(self, *pieces: str) -> str:
        self.drawn(*pieces)
        self.stream.close()
        return self.page.getvalue()


def test_an_answer_is_drawn_alike_however_it_comes() -> None:
    assert Drawing().all_drawn(ANSWER) == DRAWN
    assert Drawing().all_drawn(*ANSWER) == DRAWN
    assert Drawing().all_drawn(*re.findall(r".{1,7}", ANSWER, re.DOTALL)) == DRAWN


def test_a_block_is_drawn_when_the_next_one_begins_and_never_again() -> None:
    drawing = Drawing()
    assert drawing.drawn("A pa", "ragraph\n", "of two lines\n", "\n") == ""
    assert drawing.drawn("- an item\n") == "A paragraph\nof two lines\n"
    assert drawing.drawn("- a second\n") == "A paragraph\nof two lines\n\n • an item\n"
    assert drawing.drawn("\nThe end") == "A paragraph\nof two lines\n\n • an item\n"
    assert drawing.all_drawn() == "A paragraph\nof two lines\n\n • an item\n • a second\n\nThe end\n"


def test_a_line_that_is_not_whole_decides_nothing() -> None:
    """`#` alone would be a heading, and end the paragraph."""
    assert Drawing().all_drawn("not\n", "#", "a heading\n") == "not\n#a heading\n"
    assert Drawing().all_drawn("1", "0 is no item") == "10 is no item\n"


def test_a_carriage_return_ends_no_line() -> None:
    assert Drawing().all_drawn("a\rb\r\n\r\nc\r\n") == "ab\n\nc\n"


def test_nothing_comes_of_nothing() -> None:
    assert Drawing().all_drawn() == ""
    assert Drawing().all_drawn("\n", " \n\n") == ""


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["- ", "1. ", "> ", "# ", "```", "\n", "\n\n", "  ", "a", "b *c*", "|", "---", "[d]: e", "\r"])
    )
)
def test_pieces_make_no_difference(pieces: list[str]) -> None:
    assert Drawing().all_drawn(*pieces) == Drawing().all_drawn(*"".join(pieces))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(categories=["L", "N"]), min_size=1, max_size=60), st.sampled_from("-#>`<[&_"))
def test_no_word_is_lost(word: str, mark: str) -> None:
    shown = Drawing().all_drawn(f"{mark} {word}\n\n<p>{word}</p>\n\n[x]: {word}\n")
    assert re.sub(r"[\s▌]", "", shown).count(word) >= 3 * (word not in mark)


# --- whole programs


@pytest.fixture
def writer(tmp_path: Path) -> Callable[[str], Path]:
    """`writer(text)` makes a model that answers everything with a text."""

    def write(text: str) -> Path:
        data = text.encode()
        path = tmp_path / "writer.gguf"
        write_parrot(path, [data[i : i + 40] for i in range(0, len(data), 40)])
        return path

    return write


def lines_of(n: int) -> str:
    return "\n".join(f"- line {i} of **many**" for i in range(n))


def test_two_hundred_lines_on_a_small_screen_are_in_the_scrollback_once_each(
    screen: Start, writer: Callable[[str], Path]
) -> None:
    chat = screen("chat", "-m", writer(lines_of(30)), "-c", "2048", "-n", "-1", "--temp", "0", "-t", "1", lines=24)
    for _ in range(7):
        chat.ask("go on")
    shown = [*chat.above, *chat.lines]
    for i in range(30):
        assert shown.count(f" • line {i} of many") == 7
    assert len([line for line in shown if line.startswith(f"{PROMPT} go on")]) == 7
    assert len(chat.above) > 200 - 24


@pytest.mark.parametrize("changed", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"never": "never"}])
def test_markdown_stays_as_it_is_where_it_is_not_wanted(
    screen: Start, writer: Callable[[str], Path], changed: dict[str, str]
) -> None:
    never = ["--markdown", changed.pop("never", "auto")]
    chat = screen("generate", "-m", writer(lines_of(3)), "-c", "512", "--temp", "0", *never, "hi", **changed)
    assert chat.end() == 0
    assert lines_of(3) in chat.text


def test_a_pipe_gets_the_answer_as_it_is_unless_it_asks(program: Program, writer: Callable[[str], Path]) -> None:
    model = writer(lines_of(3))
    asked = ["generate", "-m", model, "-c", "512", "--temp", "0", "hi"]
    assert program(*asked).stdout == lines_of(3) + "\n"
    drawn = "".join(f" • line {i} of many\n" for i in range(3))
    assert program(*asked, "--markdown", "always").stdout == drawn


def test_markdown_fits_a_narrow_screen(screen: Start, writer: Callable[[str], Path]) -> None:
    text = (
        "# 大きな題\n\nA long line of **words** that does not fit forty columns at all\n\n```\n" + "x" * 50 + "\n```\n"
    )
    narrow = screen("generate", "-m", writer(text), "-c", "512", "--temp", "0", "hi", columns=40)
    assert narrow.end() == 0
    assert "A long line of words that does not fit\nforty columns at all" in narrow.text
    assert re.sub(r"\s", "", narrow.text).endswith("x" * 50)


def test_an_answer_cannot_command_the_terminal_by_markdown(screen: Start, writer: Callable[[str], Path]) -> None:
    text = "a &#27;]2;pwned&#7; [b](http://x/&#27;]2;pwned&#7;)\n\n```\n\x1b]2;pwned\x07\n```\n"
    seen = screen("generate", "-m", writer(text), "-c", "512", "--temp", "0", "hi")
    assert seen.end() == 0
    assert "pwned" in seen.text
    assert b"\x1b]" not in seen.output
    assert seen.emulated.title == ""
