"""The pages in a real browser: what people see, with a mouse, a keyboard, a phone, and by what axe-core judges."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from server.pages.shown import link
from tests.server.conftest import TOKENS
from tests.server.live import LiveServer
from tests.server.pages.shop import HOSTILE, RTL, SCRIPT

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian's package chromium)")

ADDRESSES = {
    "catalogue": "/",
    "features": "/?kind=feature",
    "search": "/?q=spending",
    "nothing": "/?q=nothing-like-it",
    "view": link("view", "spending"),
    "windowed": link("view", "recent"),
    "computed": link("view", "basket_share"),
    "feature": link("feature", "total", "spending"),
    "texts": link("feature", "city", "spending"),
    "entity": link("entity", "customer"),
    "source": link("source", "orders"),
    "service": link("service", "checkout"),
    "training-set": link("training-set", "till_2"),
    "lineage": "/lineage",
    "freshness": "/freshness",
    "drift": "/drift",
    "audit": "/audit",
    "lookup": "/lookup?service=checkout",
    "hostile view": link("view", f"{SCRIPT} view"),
    "hostile feature": link("feature", RTL, f"{RTL} view"),
    "long": link("service", f"{HOSTILE[2]} service"),
}
WAIT_MS = 120_000
"""The first page waits for Feast to be loaded, on a machine that does other things as well."""

expect.set_options(timeout=WAIT_MS)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; as root, who may run tests in a container, it has no sandbox."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@contextmanager
def looking(browser: Browser, live: LiveServer, size: dict[str, int] = DESKTOP, **more: Any) -> Iterator[Page]:
    """Opens a page whose every error, violation of its policy and request to elsewhere fails the test at its end."""
    wrong: list[str] = []
    context: BrowserContext = browser.new_context(viewport=size, base_url=live.url, **more)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on("console", lambda told: wrong.append(told.text) if told.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith(live.url) else wrong.append(asked.url))
    try:
        yield page
    finally:
        context.close()
    assert wrong == []


def serious_faults(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds that keeps people from using a page."""
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"][:200] for node in each["nodes"]])
        for each in found
        if each["impact"] in {"serious", "critical"}
    ]


SAMPLE = {"catalogue", "feature", "lookup", "hostile view"}
"""Pages that the ordinary run looks at."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SAMPLE else [pytest.mark.long]) for name in ADDRESSES]
)
def test_a_page_is_readable_by_everybody(browser: Browser, pages: LiveServer, name: str) -> None:
    """Light on a desktop and dark on a phone: no fault that axe-core calls serious, and no scrolling sideways."""
    for size, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
        with looking(browser, pages, size, color_scheme=scheme) as page:
            page.goto(ADDRESSES[name])
            assert serious_faults(page) == []
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            levels = [
                int(each[1]) for each in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => e.tagName)")
            ]
            assert levels.count(1) == 1
            assert all(after <= before + 1 for before, after in pairwise(levels))
            assert page.title() != "owned"


def test_colours_follow_the_person(browser: Browser, pages: LiveServer) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with looking(browser, pages, color_scheme=scheme) as page:
            page.goto(link("feature", "total", "spending"))
            backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            fill = page.evaluate("getComputedStyle(document.querySelector('svg.chart path[fill^=var]')).fill")
            backgrounds.append(fill)
    assert len(set(backgrounds)) == 4


def test_a_chart_says_what_it_shows_and_stands_beside_its_figures(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages) as page:
        page.goto(link("feature", "total", "spending"))
        expect(page.get_by_role("img", name="Distribution of total, and of its reference")).to_be_visible()
        expect(page.get_by_role("table", name="Source of").get_by_role("row", name="Median")).to_contain_text("109")
        expect(page.get_by_role("img", name="over 2 runs")).to_be_visible()


def test_all_is_reached_by_keyboard_alone(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox", name="Search the catalogue")).to_be_focused()
        page.keyboard.type("times here")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="visits", exact=True).focus()
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="visits", level=1)).to_be_visible()
    assert outline == "solid", "what has the focus is seen"


def test_every_tab_stop_of_a_page_shows_that_it_has_the_focus(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages) as page:
        page.goto(link("view", "spending"))
        seen = 0
        for _ in range(200):
            page.keyboard.press("Tab")
            told = page.evaluate(
                "(() => { const e = document.activeElement; if (!e || e === document.body) return null;"
                " const s = getComputedStyle(e.closest('.node') ? e.querySelector('rect') : e);"
                " return s.outlineStyle !== 'none' || parseFloat(s.strokeWidth) > 2; })()"
            )
            if told is None:
                break
            assert told, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            seen += 1
        assert seen > 30


def test_a_node_of_the_lineage_lights_up_what_it_is_made_from(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages) as page:
        page.goto("/lineage")
        page.get_by_role("link", name="on-demand feature view basket_share").focus()
        lit = page.locator(".lineage .node.on title").all_text_contents()
        assert {each.partition(" (")[0] for each in lit} >= {"orders", "orders_push", "spending", "checkout", "till_2"}
        assert not any(SCRIPT in each for each in lit)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="basket_share", level=1)).to_be_visible()


def test_a_key_is_looked_up_in_the_form(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages) as page:
        page.goto("/lookup")
        page.get_by_label("Feature service").select_option("checkout")
        page.get_by_role("button", name="Choose").click()
        page.get_by_label("customer_id").fill("1")
        page.get_by_label("basket_value").fill("2.1")
        page.get_by_role("button", name="Look up").click()
        row = page.get_by_role("row", name="spending__total")
        expect(row).to_contain_text("10.5")
        expect(row).to_contain_text("PRESENT")
        expect(page.get_by_role("row", name="basket_share__share")).to_contain_text("0.2")
        expect(page.get_by_label("customer_id")).to_have_value("1")


def test_a_mistake_in_the_form_is_told_and_what_was_typed_stays(browser: Browser, pages: LiveServer) -> None:
    with browser.new_context(base_url=pages.url) as context:
        page = context.new_page()
        page.goto("/lookup?features=spending%3Atotal")
        page.get_by_label("customer_id").fill("one")
        page.get_by_role("button", name="Look up").click()
        expect(page.get_by_role("alert")).to_contain_text("'one' is no INT64")
        expect(page.get_by_label("customer_id")).to_have_value("one")


def test_code_is_copied(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(link("view", "spending"))
        page.get_by_role("button", name="Copy: Train (Python)").click()
        expect(page.get_by_role("button", name="Copy: Train (Python)")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("import pandas as pd\nfrom feast import")


def test_pages_work_without_scripts(browser: Browser, pages: LiveServer) -> None:
    with looking(browser, pages, java_script_enabled=False) as page:
        page.goto("/?q=spending")
        page.get_by_role("row", name="spending").get_by_role("link", name="spending", exact=True).first.click()
        expect(page.get_by_role("heading", name="Lineage")).to_be_visible()


def test_a_person_logs_in_and_out(browser: Browser, closed: LiveServer) -> None:
    with looking(browser, closed) as page:
        page.goto(link("view", "spending"))
        expect(page).to_have_url(f"{closed.url}/login?next=%2Fview%3Fname%3Dspending")
        assert [
            each["id"] for each in Axe().run(page).response["violations"] if each["impact"] in {"serious", "critical"}
        ] == []
        page.get_by_label("Token").fill(TOKENS["read"])
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("heading", name="spending", level=1)).to_be_visible()
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        page.goto("/lineage")
        expect(page.get_by_label("Token")).to_be_visible()
