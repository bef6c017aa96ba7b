"""The server as one object: a library of runs, a queue of jobs, the routes, and the guard before all of them."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..._version import __version__
from ...core import FormatError
from .bench import Desks
from .comparing import Comparisons
from .guard import Guard
from .jobs import Jobs, Refused
from .library import Library, said
from .reading import Reader
from .routes import ROUTES

AT_ONCE = 4
"""Answers that are made at a time, each by a thread; the others wait. Python gains nothing by more, and each may hold a
table of gigabytes while it works."""
BUNDLED = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Place:
    """What the studio is opened on.

    Args:
        root: the folder of runs, where new ones go; it need not be there yet.
        opens: the run of that folder that is shown, and alone; None shows all.
        read_only: nothing can be started.
    """

    root: Path
    opens: Path | None = None
    read_only: bool = False


def make_app(place: Place, *, token: str | None = None, cookie: str = "superscope") -> FastAPI:
    """The studio's server, to be run by uvicorn on a loopback address.

    Args:
        place: what it is opened on.
        token: that the opened address must hold; by default a new one, at `app.state.token`.
        cookie: its name.
    """
    token = token or secrets.token_urlsafe(32)
    why_not = "This studio is read-only: it was started with --read-only." if place.read_only else ""
    library = Library(place.root, BUNDLED, place.opens)
    jobs = Jobs(place.root, why_not)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = AT_ONCE
        # Another studio may have the folder's jobs; this one then shows runs alone.
        with contextlib.suppress(Refused):
            jobs.begin()
        yield
        app.state.bench.close()
        jobs.close()

    app = FastAPI(
        title="Superscope studio", version=__version__, lifespan=life, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.bench, app.state.comparisons = Desks(library, why_not), Comparisons(library)
    app.state.library, app.state.jobs, app.state.token, app.state.place = library, jobs, token, place
    app.state.reader = Reader()
    for route in ROUTES:
        app.include_router(route)

    def refuse(status: int, kinds: type[Exception]) -> None:
        @app.exception_handler(kinds)
        async def _(request: Request, error: Exception) -> JSONResponse:
            return JSONResponse({"error": said(error)}, status)

    for status, kind in ((404, LookupError), (404, FileNotFoundError), (409, Refused), (422, FormatError)):
        refuse(status, kind)
    refuse(422, ValueError)

    @app.exception_handler(RequestValidationError)
    async def _(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"error": said(ValueError(f"{where or 'The request'}: {first['msg']}."))}, 422)

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": said(ValueError(f"{error.detail}."))}, error.status_code)

    @app.exception_handler(Exception)
    async def _(request: Request, error: Exception) -> JSONResponse:
        logging.getLogger(__name__).error("%s", request.url.path, exc_info=error)
        return JSONResponse({"error": f"The server failed ({type(error).__name__}); its terminal says where."}, 500)

    app.add_middleware(Guard, token=token, name=cookie)
    return app


def server_of(app: FastAPI) -> uvicorn.Server:
    """What runs the app on a listening socket, with bounds on connections and headers."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=128,
            # Longer than a page is likely to think: a request that meets the end of its kept connection is lost.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=32_768,
        )
    )
