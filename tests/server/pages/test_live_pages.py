"""What a real server answers where pages are: every object's page, hostile texts, refusals, the form, the code."""

import json
import os
import re
import signal
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from server.limits import FORM_BODY_BYTES_MAX
from server.pages.shown import link, visible
from tests.server.live import LiveServer
from tests.server.pages.shop import HOSTILE, LONG, PATH, QUOTES, RTL, SCRIPT

HTML = {"Accept": "text/html,*/*;q=0.8"}
SCREENS = ("/", "/lineage", "/freshness", "/drift", "/audit", "/lookup")
_VOID = {"meta", "link", "input", "br", "path", "rect"}


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text of each."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.codes: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "code" and "pre" in self._open:
            self.codes.append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open[-1:] == ["code"] and "pre" in self._open:
            self.codes[-1] += data


def entries(pages: LiveServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pages.get("/api/catalogue").json()["entries"]
    return found


def read(pages: LiveServer, address: str, status: int = 200) -> Page:
    answer = pages.get(address, headers=HTML)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert "private" in answer.headers["cache-control"] or "no-store" in answer.headers["cache-control"]
    page = Page(answer.text)
    for tag, attributes in page.elements:
        assert tag not in {"style", "iframe", "object", "base"}, f"{tag} in {address}"
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
            assert not (attributes.get(name) or "").startswith("//"), attributes
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert all(str(each["src"]).startswith("/static/larder.js?v=") for each in scripts)
    assert len(scripts) <= 1
    return page


def test_every_object_has_a_page_that_names_it_and_runs_nothing_of_it(pages: LiveServer) -> None:
    listed = entries(pages)
    assert {each["kind"] for each in listed} == {"view", "feature", "service", "entity", "source", "training-set"}
    assert len(listed) > 40
    for entry in listed:
        page = read(pages, link(entry["kind"], entry["name"], entry.get("view", "")))
        assert visible(entry["name"], 200) in page.text, entry["name"]
        assert "49" not in page.codes, "a template ran what a name says"


@pytest.mark.parametrize("address", SCREENS)
def test_every_screen_is_a_page(pages: LiveServer, address: str) -> None:
    page = read(pages, address)
    assert "shop" in page.text


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "quotes", "long", "rtl", "path"])
def test_hostile_texts_are_shown_as_texts_wherever_they_stand(pages: LiveServer, text: str) -> None:
    seen = visible(text, 150).removesuffix("…")[:60]
    for address in (
        link("view", f"{text} view"), link("entity", text), link("source", f"{text} source"),
        link("service", f"{text} service"), link("feature", text, f"{text} view"), f"/?q={quote(text[:100])}",
    ):  # fmt: skip
        page = read(pages, address)
        assert seen in page.text, address
        assert "\u202e" not in page.text
    for address in (
        "/drift",
        "/audit",
        "/lineage",
        "/freshness",
        f"/lookup?{urlencode({'service': f'{text} service'})}",
    ):
        read(pages, address)


@pytest.mark.parametrize("text", HOSTILE, ids=["script", "quotes", "long", "rtl", "path"])
def test_a_link_leads_to_the_object_of_just_this_name(pages: LiveServer, text: str) -> None:
    answer = pages.get("/api/view", params={"name": f"{text} view"})
    assert answer.json()["features"][0]["name"] == text
    assert answer.json()["services"] == [f"{text} service"]


# --- refusals ---------------------------------------------------------------------------------


def test_an_unknown_object_is_a_page_with_a_search_and_names_that_are_like_it(pages: LiveServer) -> None:
    page = read(pages, "/view?name=spendings+total", 404)
    assert "'spendings total' is not registered" in page.text
    assert ("/feature?view=spending&name=total") in [a.get("href") for _, a in page.elements]
    assert any(tag == "input" and a.get("name") == "q" for tag, a in page.elements)
    assert pages.get("/api/view?name=none").json()["detail"].startswith("view 'none' is not registered")


@pytest.mark.parametrize(
    "name", ["", SCRIPT + "x", "\x00", "\ud83d".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_any_name_that_is_not_registered_is_not_found(pages: LiveServer, name: str) -> None:
    for kind in ("view", "entity", "source", "service", "training-set"):
        read(pages, f"/{kind}?{urlencode({'name': name})}", 404)


def test_an_unknown_path_is_a_page_for_browsers_and_json_for_programs(pages: LiveServer) -> None:
    page = read(pages, "/nowhere/<b>", 404)
    assert "/nowhere/<b>" in page.text
    answer = pages.get("/nowhere")
    assert answer.status_code == 404
    assert "/nowhere" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("/?kind=views", "none of"),
        ("/?page=0", "the first one is 1"),
        ("/?page=x", "no page"),
        ("/?qq=x", "unknown"),
        ("/view?nam=x", "unknown"),
        ("/lineage?x=1", "unknown"),
    ],
)
def test_a_wrong_parameter_is_told_on_a_page(pages: LiveServer, address: str, told: str) -> None:
    assert told in read(pages, address, 422).text


def test_the_api_refuses_in_json(pages: LiveServer) -> None:
    for address in ("/api/catalogue?kind=views", "/api/catalogue?offset=-1", "/api/lineage?kind=feature&name=x"):
        answer = pages.get(address, headers=HTML)
        assert answer.status_code == 422
        assert answer.json()["detail"]


# --- lists ------------------------------------------------------------------------------------


def test_a_search_finds_what_matches_every_word_and_its_api_says_the_same(pages: LiveServer) -> None:
    found = pages.get("/api/catalogue", params={"q": "sales SPENDING"}).json()
    assert [(each["kind"], each["name"]) for each in found["entries"]] == [("view", "spending")]
    page = read(pages, "/?q=sales+SPENDING")
    assert "spending" in page.text
    assert "Nothing matches" in read(pages, "/?q=sales+nothing-like-it").text


def test_entries_are_given_in_parts(pages: LiveServer) -> None:
    whole = pages.get("/api/catalogue?kind=feature").json()
    parts = [pages.get(f"/api/catalogue?kind=feature&offset={at}&limit=3").json() for at in range(0, whole["total"], 3)]
    assert [entry for part in parts for entry in part["entries"]] == whole["entries"]


def test_lineage_leads_from_source_to_training_set(pages: LiveServer) -> None:
    graph = pages.get("/api/lineage?kind=view&name=spending").json()
    links = {(edge["from"]["name"], edge["to"]["name"]) for edge in graph["edges"]}
    expected = {("orders", "orders_push"), ("orders_push", "spending"), ("spending", "basket_share"),
                ("spending", "checkout"), ("basket_share", "checkout"), ("checkout", "till_2")}  # fmt: skip
    assert expected <= links


# --- caching and static files -----------------------------------------------------------------


def test_a_page_that_has_not_changed_is_not_sent_again(pages: LiveServer) -> None:
    first = pages.get("/entity?name=customer")
    again = pages.get("/entity?name=customer", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code in {200, 304}  # the minute at its foot may have passed
    if again.status_code == 304:
        assert not again.content
    assert pages.get("/entity?name=customer", headers={"If-None-Match": '"other"'}).status_code == 200


def test_static_files_are_kept_for_ever_under_the_address_of_their_content(pages: LiveServer) -> None:
    html = pages.get("/").text
    for name in ("larder.css", "larder.js", "larder.svg"):
        address = re.search(rf'"(/static/{name}\?v=\w+)"', html)[1]
        answer = pages.get(address)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert pages.get(f"/static/{name}").headers["cache-control"] == "no-cache"
    assert pages.get("/static/none.css").status_code == 404
    assert pages.get("/static/..%2Fsite.py").status_code == 404


# --- the form ---------------------------------------------------------------------------------


def send(pages: LiveServer, fields: dict[str, str], headers: dict[str, str] | None = None) -> Any:
    return pages.post("/lookup", data=fields, headers={"Sec-Fetch-Site": "same-origin"} if headers is None else headers)


def test_the_form_answers_as_a_lookup_does(pages: LiveServer) -> None:
    answer = send(pages, {"service": "checkout", "features": "", "key.customer_id": "1", "key.basket_value": "5.25"})
    assert answer.status_code == 200
    page = Page(answer.text)
    looked_up = pages.lookup({"customer_id": [1], "basket_value": [5.25]}, feature_service="checkout").json()
    for vector in looked_up["results"]:
        assert vector["statuses"][0] in page.text
    assert "10.5" in page.text
    assert "0.5" in page.text


@pytest.mark.parametrize(
    ("features", "key", "status"),
    [
        ("spending:total", "9", "NOT_FOUND"),
        ("spending:total", "3", "NULL_VALUE"),
        ("spending:last_items", "1", "PRESENT"),
    ],
)
def test_statuses_are_those_of_lookups(pages: LiveServer, features: str, key: str, status: str) -> None:
    answer = send(pages, {"service": "", "features": features, "key.customer_id": key})
    assert status in Page(answer.text).text


def test_stored_texts_mean_no_harm_either(pages: LiveServer) -> None:
    for key, seen in (("2", SCRIPT), ("3", visible(RTL))):
        answer = send(pages, {"service": "", "features": "spending:city", "key.customer_id": key})
        assert seen in Page(answer.text).text
        assert SCRIPT not in answer.text


@pytest.mark.parametrize(
    ("fields", "status", "told"),
    [
        (
            {"service": "checkout", "key.customer_id": "1.5", "key.basket_value": "1"},
            422,
            "'customer_id': '1.5' is no INT64",
        ),
        ({"service": "checkout", "key.customer_id": "1", "key.basket_value": "x"}, 422, "is no DOUBLE"),
        ({"service": "checkout", "key.customer_id": "1"}, 422, "choose anew"),
        ({"service": "none", "key.customer_id": "1"}, 404, "'none' is not registered"),
        ({"service": "", "features": "spending:none", "key.customer_id": "1"}, 404, "has no feature 'none'"),
        ({"service": "", "features": SCRIPT, "key.customer_id": "1"}, 422, "is malformed"),
        ({"service": "", "features": "spending:total", "key.customer_id": str(2**70)}, 422, "customer_id"),
    ],
)
def test_what_cannot_be_looked_up_is_told_beside_the_form(
    pages: LiveServer, fields: dict[str, str], status: int, told: str
) -> None:
    answer = send(pages, fields)
    assert answer.status_code == status
    page = Page(answer.text)
    assert told in page.text
    assert any(tag == "textarea" for tag, _ in page.elements)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{url}"},
        {},
    ],
)
def test_a_form_from_elsewhere_is_refused(pages: LiveServer, headers: dict[str, str]) -> None:
    sent = {name: value.format(url=pages.url) for name, value in headers.items()}
    answer = send(pages, {"service": "checkout", "key.customer_id": "1", "key.basket_value": "1"}, sent)
    assert answer.status_code == 403
    assert "did not come from a page of this server" in Page(answer.text).text


def test_an_older_browser_is_known_by_its_origin(pages: LiveServer) -> None:
    fields = {"service": "checkout", "key.customer_id": "1", "key.basket_value": "1"}
    assert send(pages, fields, {"Origin": pages.url}).status_code == 200


def test_bodies_of_forms_are_bounded_and_of_one_kind(pages: LiveServer) -> None:
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    assert pages.post("/lookup", content=b"a=" + b"x" * FORM_BODY_BYTES_MAX, headers=headers).status_code == 413
    assert pages.post("/lookup", {"service": "checkout"}, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 415
    many = "&".join(f"f{each}=1" for each in range(2_000)).encode()
    for body in (b"\xff=1", b"service=a&service=b", b"nonsense", many):
        assert pages.post("/lookup", content=body, headers=headers).status_code == 422


# --- code to copy -----------------------------------------------------------------------------


def codes(pages: LiveServer, address: str) -> list[str]:
    return read(pages, address).codes


@pytest.mark.parametrize(
    "address",
    [
        link("view", "spending"), link("view", "recent"), link("view", "basket_share"), link("service", "checkout"),
        link("feature", "joined", "spending"), link("feature", QUOTES, f"{QUOTES} view"),
        link("service", f"{SCRIPT} service"),
    ],
)  # fmt: skip
def test_code_to_copy_runs(
    pages: LiveServer, shop: Path, address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.parent)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    train, curl, over_http, by_sdk = [each for each in codes(pages, address) if not each.startswith("def ")][-4:]
    answer = json.loads(subprocess.run(["sh", "-c", curl], check=True, capture_output=True, text=True).stdout)
    names = answer["metadata"]["feature_names"]
    assert answer["results"]
    for code in (train, over_http, by_sdk):
        exec(compile(code, "copied", "exec"), {"__name__": "copied"})
        told = capsys.readouterr().out
        assert names[-1][:20] in told or repr(names[-1])[1:20] in told, told


def test_a_training_set_is_loaded_by_its_code(
    pages: LiveServer, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.parent)
    [code] = codes(pages, "/training-set?name=till_2")
    with pytest.warns(RuntimeWarning, match="Retrieving datasets is an experimental feature"):
        exec(compile(code, "copied", "exec"), {"__name__": "copied"})
    assert "customer_id" in capsys.readouterr().out


# --- what pages cost ----------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def page_processes(pages: LiveServer) -> list[int]:
    return [child for zygote in children(pages.process.pid) for child in children(zygote)]


def test_the_worker_carries_nothing_that_makes_pages(pages: LiveServer) -> None:
    read(pages, link("feature", "total", "spending"))
    assert "vl_convert" not in Path(f"/proc/{pages.process.pid}/maps").read_text()
    assert any("vl_convert" in Path(f"/proc/{each}/maps").read_text() for each in page_processes(pages))


def test_a_page_process_that_was_killed_is_replaced(pages: LiveServer) -> None:
    read(pages, "/")
    for process in page_processes(pages):
        os.kill(process, signal.SIGKILL)
    read(pages, "/")


def test_long_names_are_cut_on_pages_and_whole_in_code(pages: LiveServer) -> None:
    page = read(pages, link("view", f"{LONG} view"))
    assert f"{LONG[:199]}…" in page.text
    assert any(LONG in code for code in page.codes)
    assert read(pages, link("view", f"{PATH} view"))
