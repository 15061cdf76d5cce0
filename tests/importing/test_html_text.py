"""HTML as text: lines where a reader sees them, quotes marked, nothing hidden."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dps_local.importing.html_text import html_text

CASES = {
    "<p>One <b>two</b>\n three</p><p>four</p>": "One two three\n\nfour",
    "<div>one</div><div>two</div><div><br></div><div>three</div>": "one\ntwo\n\nthree",
    "one<br>two<br/>three": "one\ntwo\nthree",
    "<ul><li>seal</li><li>hose</li></ul>": "- seal\n- hose",
    "mine<blockquote>theirs<blockquote>older</blockquote></blockquote>mine": "mine\n> theirs\n>> older\nmine",
    "a &lt;b&gt; &amp; c&nbsp;d &euro;": "a <b> & c d €",
    "<style>x</style><script>y</script><title>z</title>seen": "seen",
    "<!-- no -->seen<!--[if mso]>no<![endif]-->": "seen",
    "Mara<div class='moz-signature'>Lind Pumps</div>": "Mara\n--\nLind Pumps",
    "<pre>a  b\n  c</pre>": "a  b\n  c",
    "never <b>closed <i>at all": "never closed at all",
    "1 < 2 and 3 > 2": "1 < 2 and 3 > 2",
    "bold<b> word</b>s": "bold words",
    "</div></div>stray": "stray",
    "": "",
}


@pytest.mark.parametrize("html", CASES)
def test_html_reads_as_it_looks(html: str) -> None:
    assert html_text(html) == CASES[html]


@given(
    st.lists(st.sampled_from([*"<>&;/!-='\"ab \n", "div", "<blockquote>", "</p>", "<!--", "<![", "<pre>"])).map("".join)
)
def test_no_html_is_too_odd(html: str) -> None:
    html_text(html)


@pytest.mark.parametrize(
    "piece", ["<div>", "<!--", "<![CDATA[", "<", "<a a='", "<b></i>", "a ", "<blockquote>a", "<?", "</"]
)
def test_hostile_html_takes_no_longer_than_a_moment(piece: str) -> None:
    started = time.process_time()
    html_text(piece * 100_000)
    assert time.process_time() - started < 3
