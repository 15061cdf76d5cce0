"""The server's page as files: who gets them, and what they may do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from stub_service import StubService, served

from dps_local.drawing.page import stylesheet
from dps_local.server.api_keys import ApiKeys
from dps_local.server.app import Api, make_app
from dps_local.server.guard import Access
from dps_local.server.page_files import FILES, TYPES
from dps_local.server.page_link import PageLink

URL = "http://127.0.0.1:8080"
KEYS = ApiKeys({"k1": frozenset(["ben"]), "k2": None})


class Opened:
    """A server's page, as browsers ask for it. links: all that were announced."""

    def __init__(self, api: Api, keys: ApiKeys | None = KEYS) -> None:
        self.links: list[str] = []
        self.link = PageLink(URL, self.links.append)
        self.link.renew()
        self.app = make_app(api, Access(keys=keys, link=self.link))

    def browser(self) -> TestClient:
        return TestClient(self.app, base_url=URL, follow_redirects=False)

    def inside(self) -> tuple[TestClient, str]:
        """Return a browser that used the link, and its key."""
        browser = self.browser()
        response = browser.get(self.links[-1])
        assert response.status_code == 303
        return browser, response.headers["location"].removeprefix("/#")


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    with served(StubService()) as api:
        yield api


@pytest.fixture
def opened(api: Api) -> Opened:
    return Opened(api)


def files() -> dict[str, str]:
    return {path.name: path.read_text() for path in FILES.iterdir()} | {"drawing.css": stylesheet()}


def test_a_link_works_once_and_the_next_one_is_announced(opened: Opened) -> None:
    first = opened.links[-1]
    assert re.fullmatch(URL + r"/\?link=[\w-]{43}", first)
    opened.inside()
    assert len(set(opened.links)) == 2
    assert opened.browser().get(first).status_code == 403
    opened.inside()


def test_the_cookie_is_for_this_server_alone_and_no_script_reads_it(opened: Opened) -> None:
    cookie = opened.browser().get(opened.links[-1]).headers["set-cookie"]
    name, *flags = [part.strip().lower() for part in cookie.split(";")]
    assert name.startswith("dps-local-8080=")
    assert sorted(flags) == ["httponly", "path=/", "samesite=strict"]  # no date: it goes with the browser


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/drawing.css", "/page/none", "/?link=wrong", "/?link=ä"])
def test_without_the_cookie_there_is_one_plain_line(opened: Opened, path: str) -> None:
    browser = opened.browser()
    for headers in ({}, {"cookie": "dps-local-8080=wrong"}):
        response = browser.get(path, headers=headers)
        assert response.status_code == 403
        assert response.headers["content-type"].startswith("text/plain")
        assert response.text == "open this page by the link that `dps-local serve` printed last: each link works once\n"
    assert len(opened.links) == 1


def test_an_api_key_does_not_open_the_page(opened: Opened) -> None:
    assert opened.browser().get("/", headers={"authorization": "Bearer k2"}).status_code == 403


def test_a_used_link_leads_who_is_inside_to_the_page(opened: Opened) -> None:
    browser, _ = opened.inside()
    response = browser.get(opened.links[0])
    assert (response.status_code, response.headers["location"]) == (307, "/")


def test_requests_of_the_page_may_use_all_profiles_and_others_need_an_api_key(opened: Opened) -> None:
    browser, key = opened.inside()

    def models(client: TestClient, key: str | None) -> list[str] | int:
        response = client.get("/v1/models", headers={"authorization": f"Bearer {key}"} if key else {})
        return [model["id"] for model in response.json()["data"]] if response.is_success else response.status_code

    assert models(browser, key) == ["tiny", "tiny@ada", "tiny@ben", "tiny@cat", "tiny@dot"]
    assert models(browser, None) == 401  # a server at another port of the host has the cookie, too
    assert models(opened.browser(), key) == 401
    assert models(browser, "k1") == ["tiny", "tiny@ben"]


def test_the_page_of_another_port_gains_nothing(opened: Opened) -> None:
    browser, key = opened.inside()
    ask = {"authorization": f"Bearer {key}"}
    assert browser.get("/v1/models", headers=ask | {"origin": "http://127.0.0.1:9090"}).status_code == 403
    assert browser.get("/page/app.js", headers={"sec-fetch-site": "same-site"}).status_code == 403


def test_the_head_map_is_drawn_for_those_who_may_use_the_profile(opened: Opened) -> None:
    browser, key = opened.inside()
    drawn = browser.get("/v1/models/tiny@ada/heads", headers={"authorization": f"Bearer {key}"})
    assert drawn.text.count("<rect class=") == 6 * 5 + 6
    assert not re.search(r"<style|<script|\sstyle=", drawn.text)  # the page's policy allows none
    of_k1 = [
        browser.get(f"/v1/models/tiny@{name}/heads", headers={"authorization": "Bearer k1"})
        for name in ("ada", "nobody", "ben")
    ]
    assert [response.status_code for response in of_k1] == [404, 404, 404]
    assert of_k1[0].text == of_k1[1].text
    assert "no head map yet" in of_k1[2].text


def test_every_file_comes_with_a_strict_policy_and_is_never_guessed_at(opened: Opened) -> None:
    browser, _ = opened.inside()
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for name in files():
        response = browser.get("/" if name == "index.html" else f"/page/{name}")
        assert response.headers["content-type"].startswith(kinds[name.rpartition(".")[2]]), name
        policy = dict(part.split(maxsplit=1) for part in response.headers["content-security-policy"].split("; "))
        assert policy == {
            **dict.fromkeys(["default-src", "base-uri", "form-action", "frame-ancestors"], "'none'"),
            **dict.fromkeys(["script-src", "style-src", "connect-src"], "'self'"),
            "img-src": "'self' data:",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["cache-control"] == "no-store"
    for name in ("none.js", "..%2f..%2fapp.py", "%2e%2e/app.py"):
        assert browser.get(f"/page/{name}").status_code == 404


def test_the_page_is_small_and_names_no_other_address() -> None:
    assert sum(len(text.encode()) for text in files().values()) < 100_000
    for name, text in files().items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", re.sub(r"^\s*//.*$", "", text, flags=re.M)))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name  # the name of a language, not an address
        assert not re.search(r"@import|url\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), (
            name
        )
        assert not re.search(r"localStorage|indexedDB|document\.cookie", text), name


def test_without_a_link_there_is_no_page(api: Api) -> None:
    client = TestClient(make_app(api, Access()), base_url=URL)
    assert client.get("/").status_code == client.get("/page/app.js").status_code == 404


def test_all_files_are_of_a_known_kind() -> None:
    assert {Path(name).suffix for name in files()} == set(TYPES)
