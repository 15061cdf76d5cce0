"""The server's page in headless Chromium: what it does, for whom, and that nothing leaves the machine."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")

from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402
from stub_service import COMMAND, StubService, served  # noqa: E402

from dps_local.server.api_keys import ApiKeys  # noqa: E402
from dps_local.server.app import make_app  # noqa: E402
from dps_local.server.guard import Access  # noqa: E402
from dps_local.server.page_link import PageLink  # noqa: E402

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
PATIENCE = 20_000  # ms
expect.set_options(timeout=PATIENCE)
HARMLESS = "Failed to load resource"  # what Chromium says of a status that the server meant


class Server:
    """The real application over a stub that speaks, at a port of this machine. links: that opened the page."""

    def __init__(self, stub: StubService, url: str, links: list[str]) -> None:
        self.stub, self.url, self.links = stub, url, links


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    stub, listener = StubService(), socket.create_server(("127.0.0.1", 0))
    one = Server(stub, f"http://127.0.0.1:{listener.getsockname()[1]}", [])
    link = PageLink(one.url, one.links.append)
    link.renew()
    with served(stub) as api:
        app = make_app(api, Access(keys=ApiKeys({"k1": frozenset()}), link=link))
        running = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        yield one
        running.should_exit = True
        thread.join()
    listener.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox"] if os.getuid() == 0 else []
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@contextmanager
def opened(browser: Browser, server: Server, **options: Any) -> Iterator[Page]:
    """Open the page by its link; at the end, nothing left the machine, and nothing went wrong but what was meant to."""
    server.stub.reset()
    requests, errors = list[str](), list[str]()
    with browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: requests.append(request.url))
        context.on("weberror", lambda error: errors.append(str(error.error)))
        context.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        page = context.new_page()
        page.goto(server.links[-1])
        expect(page.locator("#person option")).to_have_count(5)
        yield page
        server.stub.gate.set()
    assert {url for url in requests if not url.startswith(f"{server.url}/")} == set()
    assert [error for error in errors if not error.startswith(HARMLESS)] == []


@pytest.fixture
def new_page(browser: Browser, server: Server) -> Iterator[Callable[..., Page]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(opened(browser, server, **options))


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    return new_page()


@pytest.fixture(scope="module")
def kept_page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page for tests that ask nothing."""
    with opened(browser, server) as page:
        yield page


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Send").click()


def answers(page: Page) -> Any:
    return page.locator(".answers section")


def finished(page: Page) -> None:
    expect(page.locator(".busy")).to_have_count(0)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()


def says(server: Server, *pieces: str) -> None:
    server.stub.says = lambda *_: pieces


# --- the link ---


def test_the_link_opens_the_page_and_leaves_no_trace_of_itself(page: Page, server: Server) -> None:
    assert page.url == f"{server.url}/"
    page.reload()
    expect(page.locator("#person option")).to_have_count(5)
    ask(page, "Still there?")
    expect(answers(page)).to_contain_text("You said Still there?")
    assert page.evaluate("[localStorage.length, Object.keys(sessionStorage), document.cookie]") == [
        0,
        ["dps-local-key"],
        "",
    ]


def test_a_tab_that_no_link_opened_has_the_cookie_and_no_rights(page: Page, server: Server) -> None:
    other = page.context.new_page()
    other.goto(server.url)
    expect(other.get_by_role("alert")).to_have_text("open this page by the link that dps-local serve printed last")
    for name in ("Strength γ", "Plain beside steered", "Show what steering did"):
        expect(other.get_by_label(name)).to_be_disabled()
    other.get_by_label("Your question").fill("Hi.")
    other.keyboard.press("Enter")
    other.get_by_role("button", name="New chat").click()
    expect(other.locator(".turn")).to_have_count(0)


def test_a_model_that_is_being_loaded_is_waited_for(page: Page) -> None:
    def loading(route: Route) -> None:
        route.fulfill(status=503, json={"error": {"message": "the model is being loaded"}})

    page.route("**/v1/models", loading, times=1)
    page.reload()
    expect(page.get_by_role("alert")).to_have_text("The model is being loaded…")
    expect(page.locator("#person option")).to_have_count(5)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_who_has_an_old_link_gets_one_line(page: Page, browser: Browser, server: Server) -> None:
    del page  # used the last but one
    with browser.new_context() as context:
        other = context.new_page()
        other.goto(server.links[-2])
        assert other.inner_text("body").startswith("open this page by the link that `dps-local serve` printed last")


# --- the conversation ---


def test_an_answer_streams_and_the_next_question_goes_on_from_it(page: Page, server: Server) -> None:
    server.stub.gate.clear()
    says(server, "One, ", "*two*", " three.")
    ask(page, "Count.")
    expect(answers(page)).to_contain_text("One,")
    expect(answers(page)).to_have_attribute("aria-busy", "true")
    server.stub.gate.set()
    expect(answers(page).locator(".text")).to_have_text("One, two three.")
    expect(answers(page).locator("em")).to_have_text("two")
    finished(page)
    ask(page, "On.")
    finished(page)
    assert page.locator("#log").get_attribute("aria-live") == "polite"
    (_, first), (name, second) = server.stub.asked
    assert (first.pairs, first.question) == ([], "Count.")
    assert (name, second.pairs, second.question) == ("ada", [("Count.", "One, *two* three.")], "On.")


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_frees_the_model_and_keeps_what_was_said(page: Page, server: Server, how: str) -> None:
    server.stub.gate.clear()
    says(server, "One, ", "two")
    ask(page, "Count.")
    expect(answers(page)).to_contain_text("One,")
    if how == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(answers(page)).to_contain_text("Stopped.")
    assert server.stub.cancelled.wait(10)
    finished(page)
    server.stub.gate.set()
    ask(page, "On.")
    finished(page)
    assert server.stub.asked[-1][1].pairs == [("Count.", "One, ")]


def test_an_answer_is_drawn_again(page: Page, server: Server) -> None:
    says(server, "First.")
    ask(page, "Say.")
    finished(page)
    says(server, "Second.")
    page.get_by_role("button", name="Regenerate").click()
    expect(answers(page).locator(".text")).to_have_text("Second.")
    finished(page)
    assert [asked.pairs for _, asked in server.stub.asked] == [[], []]


def test_plain_stands_beside_steered_and_each_goes_on_from_its_own(
    new_page: Callable[..., Page], server: Server
) -> None:
    page = new_page(viewport={"width": 1280, "height": 800})
    server.stub.says = lambda name, asked: [f"{name}: ", asked.question]
    page.get_by_label("Plain beside steered").check()
    for question in ("Hi.", "On."):
        ask(page, question)
        finished(page)
    expect(answers(page)).to_have_text(["ada, γ 0.2ada: Hi.", "plainNone: Hi.", "ada, γ 0.2ada: On.", "plainNone: On."])
    assert [(name, asked.pairs) for name, asked in server.stub.asked] == [
        ("ada", []),
        (None, []),
        ("ada", [("Hi.", "ada: Hi.")]),
        (None, [("Hi.", "None: Hi.")]),
    ]
    left, right = (answers(page).nth(i).bounding_box() for i in range(2))
    assert (left["y"], left["x"] + left["width"] <= right["x"]) == (right["y"], True)
    page.set_viewport_size({"width": 360, "height": 740})
    left, right = (answers(page).nth(i).bounding_box() for i in range(2))
    assert (left["x"], left["y"] + left["height"] <= right["y"]) == (right["x"], True)


def test_each_person_has_a_conversation_of_their_own(page: Page, server: Server) -> None:
    ask(page, "For ada.")
    finished(page)
    page.get_by_label("Person").select_option("tiny@ben")
    expect(page.locator(".turn")).to_have_count(0)
    ask(page, "For ben.")
    finished(page)
    assert (server.stub.asked[-1][0], server.stub.asked[-1][1].pairs) == ("ben", [])
    page.get_by_label("Person").select_option("tiny@ada")
    expect(page.locator(".turn")).to_have_text([r"You: For ada.You said For ada.Regenerate"])
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)


def test_a_profile_that_is_not_scored_says_what_to_run_and_the_question_stays(page: Page) -> None:
    page.get_by_label("Person").select_option("tiny@cat")
    expect(page.locator("#evidence")).to_have_text(f"Not scored with this model: run {COMMAND}.")
    expect(page.get_by_label("Strength γ")).to_be_disabled()
    ask(page, "Hi.")
    expect(page.get_by_role("alert")).to_have_text(f"this profile is not scored with this model: run {COMMAND}")
    expect(page.get_by_label("Your question")).to_have_value("Hi.")
    expect(page.locator(".turn")).to_have_count(0)


def test_a_server_that_is_gone_is_said_in_one_line(page: Page) -> None:
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "Hi.")
    expect(page.get_by_role("alert")).to_have_text("the server cannot be reached: is dps-local serve still running?")
    page.unroute("**/v1/chat/completions")
    ask(page, "Hi.")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(answers(page)).to_contain_text("You said Hi.")


def test_an_answer_that_breaks_off_keeps_its_text_and_says_so(page: Page) -> None:
    def half(route: Route) -> None:
        piece = '{"choices": [{"delta": {"content": "Half"}, "finish_reason": null}]}'
        route.fulfill(content_type="text/event-stream", body=f": ping\n\ndata: {piece}\n\n")

    page.route("**/v1/chat/completions", half)
    ask(page, "Hi.")
    expect(page.get_by_role("alert")).to_have_text("the answer was broken off")
    expect(answers(page).locator(".text")).to_have_text("Half")


# --- steering ---


def test_the_slider_says_what_was_measured_and_sends_what_it_shows(page: Page, server: Server) -> None:
    gamma, evidence = page.get_by_label("Strength γ"), page.locator("#evidence")
    expect(evidence).to_have_text(
        "Worth +0.031 ± 0.019 nats a token on your 12 held-out texts (by all that is known, 96 % sure to help)."
    )
    expect(page.locator("#gamma-value")).to_have_text("0.2")
    ask(page, "1")
    finished(page)
    gamma.press("ArrowRight")
    expect(page.locator("#gamma-value")).to_have_text("0.21")
    expect(evidence).to_have_text(
        "Stronger than your γ 0.2, which is worth +0.031 ± 0.019 nats a token on your 12 held-out texts "
        "(by all that is known, 96 % sure to help). Nothing was measured at this γ."
    )
    ask(page, "2")
    finished(page)
    gamma.press("Home")
    expect(evidence).to_have_text("The plain model, which sees no profile either.")
    ask(page, "3")
    finished(page)
    sent = [asked.steering.gamma for _, asked in server.stub.asked]
    assert [None if gamma is None else gamma.value for gamma in sent] == [None, 0.21, 0]
    page.get_by_role("button", name="Back to the profile’s own γ").click()
    expect(evidence).to_contain_text("Worth")


def test_what_is_only_expected_and_what_does_not_steer_is_said_so(page: Page, server: Server) -> None:
    person, evidence = page.get_by_label("Person"), page.locator("#evidence")
    person.select_option("tiny@ben")
    expect(evidence).to_have_text(
        "Off, as it may not help: expected to be worth +0.002 ± 0.003 nats a token, before anything was measured. "
        "Move the slider to steer all the same."
    )
    expect(page.get_by_label("Show what steering did")).to_be_disabled()
    page.get_by_label("Strength γ").press("ArrowRight")
    expect(evidence).to_have_text("Nothing was measured at this γ; by default steering is off here.")
    ask(page, "Hi.")
    finished(page)
    sent = server.stub.asked[-1][1].steering.gamma
    assert sent is not None
    assert sent.value == 0.05
    person.select_option("tiny@dot")
    expect(evidence).to_contain_text("there are no texts of yours that could steer it")
    person.select_option("tiny")
    expect(evidence).to_have_text("The plain model: it sees no profile, and nothing steers it.")
    expect(page.get_by_label("Plain beside steered")).to_be_disabled()


def test_tokens_are_tinted_by_what_steering_did(page: Page, server: Server) -> None:
    says(server, "Aye", ", so", " be it.")
    page.get_by_label("Show what steering did").check()
    ask(page, "Say so.")
    tokens = answers(page).locator(".answer span")
    expect(tokens).to_have_text(["Aye", ", so", " be it."])
    assert [tokens.nth(i).get_attribute("class") for i in range(3)] == ["c20", "c0 other", "c10"]
    assert tokens.nth(1).get_attribute("title") == "−0.400 nats: 20.0 % → 13.4 %; instead of ␣instead, 30.0 % → 20.0 %"
    colours = [tokens.nth(i).evaluate("e => getComputedStyle(e).backgroundColor") for i in range(3)]
    assert colours == ["rgb(179, 71, 0)", "rgb(11, 74, 143)", "rgb(239, 238, 234)"]
    expect(answers(page)).to_contain_text("amplify, γ = 0.2")
    expect(answers(page).locator(".scale")).to_have_text(
        "−0.4000+0.400less likely with steeringlikelier with it"
        "Each token’s shift, in nats. Underlined: the plain model would rather have said something else."
    )
    page.get_by_text("Tokens that were moved most").click()
    expect(answers(page).locator("tbody tr").first).to_have_text("Aye+0.40020.0 % → 29.8 %")
    page.get_by_label("Show what steering did").uncheck()
    expect(answers(page).locator(".text p")).to_have_text("Aye, so be it.")
    expect(tokens).to_have_count(0)


def test_the_head_map_is_shown_and_closed_by_escape(page: Page) -> None:
    button = page.get_by_role("button", name="Head map")
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Head map of ada")
    expect(dialog.locator("svg rect[class^=c]")).to_have_count(6 * 5)
    expect(dialog.locator("svg rect.mark")).to_have_count(6)
    expect(dialog).to_contain_text("Preference Contribution Score")
    figure = dialog.locator("figure").bounding_box()
    assert figure
    assert figure["width"] == 44 + 5 * 44 + 6  # a style that its markup has
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    page.get_by_label("Person").select_option("tiny@ben")
    expect(button).to_be_hidden()


# --- keyboard, width, colours ---


def test_the_keyboard_alone_is_enough(page: Page, server: Server) -> None:
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    finished(page)
    assert server.stub.asked[-1][1].question == "First line\nsecond"
    reached, place = [], "e => e.id || e.textContent"
    page.evaluate("document.querySelector('aside').tabIndex = -1, document.querySelector('aside').focus()")
    page.keyboard.press("Tab")
    for _ in range(12):
        focused = page.locator(":focus")
        reached.append(focused.evaluate(place))
        outline = focused.evaluate("e => getComputedStyle(e.id === 'question' ? e.parentElement : e).outlineStyle")
        assert outline == "solid", reached[-1]
        page.keyboard.press("Tab")
        if reached[-1] == "send":
            break
    assert sorted(reached) == sorted(
        ["person", "new-chat", "gamma", "beside", "tint", "open-heads", "log", "Regenerate", "question", "send"]
    )


def test_all_that_can_be_used_has_a_name(kept_page: Page) -> None:
    nameless = kept_page.evaluate("""() => [...document.querySelectorAll("input, select, textarea, button")]
        .filter((e) => !e.labels?.length && !e.textContent.trim()).map((e) => e.outerHTML)""")
    assert nameless == []


def test_a_phone_shows_all_of_it(new_page: Callable[..., Page], server: Server) -> None:
    page = new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    says(
        server,
        "word " * 50,
        "`" + "x" * 200 + "` ",
        "http://a.example/" + "y" * 200,
        "\n\n|a|b|\n|-|-|\n|1|" + "z" * 99,
    )
    ask(page, "long " * 40 + "w" * 200)
    finished(page)
    expect(page.get_by_label("Strength γ")).to_be_hidden()
    steering = page.get_by_role("button", name="Steering")
    steering.click()
    expect(steering).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_label("Strength γ")).to_be_visible()
    page.get_by_role("button", name="Head map").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    widths = "['html', 'body', 'main', '#log', 'dialog'].map((e) => document.querySelector(e).scrollWidth)"
    assert max(page.evaluate(widths)) <= 360


CONTRAST = """() => {
  const light = (c) => c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour.length === 3) return colour;
      if (colour[3] !== 0) throw new Error(`half transparent: ${e.outerHTML}`);
    }
    throw new Error("no ground");
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const skipped = element.closest("svg, option, :disabled") || !element.checkVisibility();
    if (skipped || !texts.currentNode.data.trim()) continue;
    const [a, b] = [rgba(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => y - x);
    found.push([texts.currentNode.data.slice(0, 40), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_at_least_4_5(new_page: Callable[..., Page], server: Server, scheme: str) -> None:
    page = new_page(color_scheme=scheme, reduced_motion="reduce")
    says(server, "# Title\n\n> quote\n\n", "`code` [a link](http://a.example) **bold**\n\n|a|\n|-|\n|b|")
    ask(page, "Hi.")
    finished(page)
    page.get_by_label("Show what steering did").check()
    page.get_by_label("Strength γ").press("ArrowRight")
    ask(page, "Hi.")
    finished(page)
    page.get_by_text("Tokens that were moved most").click()
    page.route("**/v1/chat/completions", lambda route: route.abort())
    ask(page, "Hi.")
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Head map").click()
    found = page.evaluate(CONTRAST)
    assert len(found) > 50
    assert [text for text in found if text[1] < 4.5] == []


def test_nothing_moves_where_a_person_wants_it_still(new_page: Callable[..., Page], server: Server) -> None:
    for motion, animation in (("reduce", "none"), ("no-preference", "breathe")):
        page = new_page(reduced_motion=motion)
        server.stub.gate.clear()
        says(server, "", "late")
        ask(page, "Hi.")
        expect(page.locator(".busy .note")).to_have_css("animation-name", animation)
        page.keyboard.press("Escape")
        finished(page)


# --- what an answer may not do ---

EVIL = [
    '<img src=x onerror="window.evil = 1">\n\n<script>window.evil = 2</script>\n\n',
    "![seen](http://evil.example/pixel.png) [click](javascript:window.evil=3) <javascript:window.evil=4>\n",
    "[data](data:text/html,<script>opener.evil=5</script>) [file](file:///etc/passwd) [path](/v1/models)\n",
    '[quote](http://evil.example/"onmouseover="window.evil=6) <svg/onload=window.evil=7>\n\n',
    "```html\n<iframe srcdoc='<script>parent.evil=8</script>'></iframe>\n```\n",
    "\x1b]52;c;ZXZpbA==\x07\x1b[31mred\x1b[0m \u202etxt.exe\u202c <a href=//evil.example>x</a>\n",
    '| <b onclick="window.evil=9">a</b> |\n|---|\n| <style>@import "//evil.example"</style> |\n',
]


@pytest.mark.parametrize("tint", [False, True])
def test_an_answer_executes_nothing_and_fetches_nothing(page: Page, server: Server, tint: bool) -> None:
    says(server, *EVIL)
    page.get_by_label("Show what steering did").set_checked(tint)
    ask(page, "".join(EVIL[:2]))
    finished(page)
    page.get_by_role("button", name="Regenerate").click()
    finished(page)
    for link in page.locator(".text .no-link").all():
        link.click()
    assert page.evaluate("window.evil") is None
    made = page.evaluate("[...new Set([...document.querySelectorAll('.turn *')].map((e) => e.localName))]")
    assert not {"img", "script", "iframe", "svg", "style", "object", "embed", "form"} & set(made)
    links = page.locator(".text a")
    assert {link.get_attribute("rel") for link in links.all()} <= {"noopener noreferrer"}
    assert all(str(link.get_attribute("href")).startswith("http") for link in links.all())
    shown = page.locator(".text").inner_text()
    assert '<img src=x onerror="window.evil = 1">' in shown
    assert not {"\x1b", "\x07", "\u202e", "\u202c"} & set(page.locator("body").inner_text())
    assert ("click" in shown, "file" in shown) == (True, True)
    handlers = "[...document.querySelectorAll('.turn *')].flatMap((e) => e.getAttributeNames())"
    assert not [name for name in page.evaluate(handlers) if name.startswith("on") or name in ("src", "style")]


# --- Markdown ---

DRAWN = """async (text) => {
  const { draw } = await import("/page/markdown.js");
  const parent = document.createElement("div");
  for (let end = 1; end < text.length; end++) draw(parent, text.slice(0, end)); // as it streams
  draw(parent, text);
  return parent.innerHTML.replaceAll(/ (dir|tabindex|title|target|rel)="[^"]*"/g, "");
}"""


MARKDOWN = {
    "a **b *c* d** e": "<p>a <strong>b <em>c</em> d</strong> e</p>",
    "***a*** *b **c** d*": "<p><strong><em>a</em></strong> <em>b <strong>c</strong> d</em></p>",
    "__e__ _f_ snake_case_name": "<p><strong>e</strong> <em>f</em> snake_case_name</p>",
    "2 * 3 * 4, ~~no~~ ~5": "<p>2 * 3 * 4, <del>no</del> ~5</p>",
    "**open `*a*` ``b ` c``": "<p>**open <code>*a*</code> <code>b ` c</code></p>",
    "*a `*` \\* b* `c": "<p><em>a <code>*</code> * b</em> `c</p>",
    r"\*a\* 1\. \\ <b>&amp;</b>": r"<p>*a* 1. \ &lt;b&gt;&amp;amp;&lt;/b&gt;</p>",
    "one\ntwo\r\n\r\nthree<br>": "<p>one<br>two</p><p>three<br></p>",
    "# A #\n## B\n###### C\n#no": "<h3>A</h3><h4>B</h4><h6>C</h6><p>#no</p>",
    "a\n\n---\n* * *\nb": "<p>a</p><hr><hr><p>b</p>",
    "> a\n> > b\n\nc": "<blockquote><p>a</p><blockquote><p>b</p></blockquote></blockquote><p>c</p>",
    "- a\n  - b\n    c\n- d": "<ul><li><p>a</p><ul><li><p>b<br>c</p></li></ul></li><li><p>d</p></li></ul>",
    "3. a\n\n   more\n4) b\ntext": '<ol start="3"><li><p>a</p><p>more</p></li><li><p>b<br>text</p></li></ol>',
    "1. a\n   - b\n2. c\n\nend": (
        '<ol start="1"><li><p>a</p><ul><li><p>b</p></li></ul></li><li><p>c</p></li></ol><p>end</p>'
    ),
    "```py\na = *1*\n\n<b>\n```\nc": '<pre aria-label="code, py"><code>a = *1*\n\n&lt;b&gt;</code></pre><p>c</p>',
    "~~~\nopen\n```": "<pre><code>open\n```</code></pre>",
    "| a | b |\n|:-|-:|\n| *1* | 2\\|3 |\nend": (
        '<div class="scroll"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
        "<tbody><tr><td><em>1</em></td><td>2|3</td></tr></tbody></table></div><p>end</p>"
    ),
    "a | b\nno table": "<p>a | b<br>no table</p>",
    "[a *b*](https://x.example/a_(b)?c)": '<p><a href="https://x.example/a_(b)?c">a <em>b</em></a></p>',
    "![d](http://x.example)": '<p><a href="http://x.example">d</a></p>',
    "see https://x.example/a_b.": '<p>see <a href="https://x.example/a_b">https://x.example/a_b</a>.</p>',
    "(<http://y.example>)": '<p>(<a href="http://y.example">http://y.example</a>)</p>',
    "[a](javascript:x) [b] [c](": '<p><span class="no-link">a</span> [b] [c](</p>',
}


@pytest.mark.parametrize(("text", "html"), MARKDOWN.items())
def test_markdown_is_drawn_as_it_is_meant(kept_page: Page, text: str, html: str) -> None:
    assert kept_page.evaluate(DRAWN, text) == html


PIECES = [
    "*",
    "**a",
    "_a ",
    "`",
    "``a`",
    "[",
    "[a](",
    "![",
    ">",
    "> ",
    "- ",
    "  ",
    "|",
    "|-",
    "#",
    "http://",
    "<http://",
]


@pytest.mark.parametrize("piece", [*PIECES, "~~", "1. ", "\\", "a\n", "|a|\n|-|\n", "***a **b *c "])
def test_no_text_keeps_the_page_busy(kept_page: Page, piece: str) -> None:
    took = """async (text) => {
      const { draw } = await import("/page/markdown.js");
      const began = performance.now();
      draw(document.createElement("div"), text);
      return performance.now() - began;
    }"""
    assert kept_page.evaluate(took, piece * (20_000 // len(piece))) < 2000  # ms
