"""The page's files: its own, and the panel of each task that is served, out of the task's folder."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fastapi import FastAPI
from starlette.responses import Response

from dolmen.catalogue import TASKS
from dolmen.runtime.server.limits import Refusal

PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def read_panel(task: str) -> bytes | None:
    """The module ``page.js`` in a task's folder, wherever its package is; None where it has none."""
    file = importlib.resources.files(TASKS[task].package) / "page.js"
    return file.read_bytes() if file.is_file() else None


def panel_path(task: str) -> str | None:
    """Where the page finds a task's panel, below ``/page/``."""
    return None if read_panel(task) is None else f"tasks/{task}.js"


def add_page(app: FastAPI, tasks: Iterable[str]) -> None:
    """Serve the page, with the panels of these tasks."""
    files = {f.name: f.read_bytes() for f in PAGE.iterdir() if f.suffix in MEDIA_TYPES}
    for task in tasks:
        if (content := read_panel(task)) is not None:
            files[f"tasks/{task}.js"] = content

    def respond(name: str) -> Response:
        media_type = MEDIA_TYPES[PurePosixPath(name).suffix]
        return Response(files[name], media_type=media_type, headers={"Cache-Control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return respond("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in files:
            raise Refusal(404, "the page has no such part")
        return respond(name)

    @app.get("/page/tasks/{name}", include_in_schema=False)
    async def panel(name: str) -> Response:
        return await part(f"tasks/{name}")
