"""The baseline: `python -m bench.online.bare_app PORT FOLDER`, a FastAPI app that returns fixed bytes.

`POST /<name>` answers with the content of the file `<name>` in the folder. Nothing is parsed, checked or looked up.
"""

import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Response


def make_app(folder: Path) -> FastAPI:
    """Returns the app, with the files of the folder in memory."""
    app = FastAPI()
    for file in sorted(folder.iterdir()):
        add_route(app, file.name, file.read_bytes())
    return app


def add_route(app: FastAPI, name: str, content: bytes) -> None:
    """Adds one route that answers with fixed bytes."""

    @app.post(f"/{name}")
    async def answer() -> Response:
        return Response(content, media_type="application/json")


if __name__ == "__main__":
    uvicorn.run(
        make_app(Path(sys.argv[2])), port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
        log_level="warning",
    )  # fmt: skip
