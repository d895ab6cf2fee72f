"""Pages that a worker makes by itself, without templates: the login, and refusals in front of the pages."""

from collections.abc import Mapping
from html import escape
from http import HTTPStatus

from starlette.responses import Response

from server.pages.assets import address
from server.pages.shown import visible

HEADERS: dict[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer, with which browsers send forms without the origin by which a foreign one is known.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What is behind a login must not come out of a cache that others share; a browser asks whether it still holds.
    "Cache-Control": "private, no-cache",
}
"""What every page is sent with: nothing from elsewhere is loaded, nothing inline run, and no other site frames it."""


def page(status: int, heading: str, body: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a page.

    Args:
        body: HTML, with everything in it that is not ours escaped.
    """
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(heading)} · Larder</title>\n<link rel="stylesheet" href="{address("larder.css")}">\n'
        f'<link rel="icon" href="{address("larder.svg")}" type="image/svg+xml">\n</head>\n<body class="lone">\n'
        f'<main id="main">\n<p class="brand"><a href="/">Larder</a></p>\n<h1>{escape(heading)}</h1>\n{body}\n</main>\n'
        "</body>\n</html>\n"
    )
    content = html.encode("utf-8", "backslashreplace")
    return Response(content, status, {**HEADERS, **(headers or {})}, "text/html; charset=utf-8")


def refusal_page(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Returns a refusal for people: what is wrong, and a search to go on with."""
    heading = "Not found" if status == HTTPStatus.NOT_FOUND else HTTPStatus(status).phrase
    search = (
        '<form class="big-search" role="search" action="/" method="get">'
        '<label for="again">Search the catalogue</label> '
        '<input id="again" name="q" type="search" maxlength="200"> <button>Search</button></form>'
    )
    return page(status, heading, f'<p class="lead"><bdi>{escape(visible(detail))}</bdi></p>\n{search}', headers)


def login_page(status: int, next_path: str, problem: str = "") -> Response:
    """Returns the page that asks for a token."""
    told = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    body = (
        f'{told}<form class="login" action="/login" method="post">'
        f'<input type="hidden" name="next" value="{escape(next_path)}">'
        '<div class="field"><label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus></div>'
        '<button class="primary">Log in</button></form>\n'
        '<p class="note">A token with the scope <code>read</code>, as <code>larder token</code> makes them. It is kept '
        "nowhere; a cookie remembers the login for twelve hours.</p>"
    )
    return page(status, "Log in", body)
