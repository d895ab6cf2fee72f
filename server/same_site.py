"""Forms are taken from our own pages only: another site must not have a person's browser send one."""

from urllib.parse import urlsplit

from fastapi import HTTPException, Request


def require_same_site(request: Request) -> None:
    """Checks that a form was sent from a page of this server, by what browsers say and scripts cannot change.

    `Sec-Fetch-Site` says so where the connection is private or local; elsewhere it is `Origin`, which browsers send
    with every form. The host guard has checked the name that is compared with.

    Raises:
        HTTPException: 403, it comes from elsewhere, or nothing says where from.
    """
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        is_ours = fetched == "same-origin"
    else:
        is_ours = urlsplit(request.headers.get("origin", "")).netloc.lower() == request.headers["host"].lower()
    if not is_ours:
        raise HTTPException(
            403,
            f"{request.url.path}: this form did not come from a page of this server; open the page here and send it "
            "from there (programs use the API, see /docs)",
        )
