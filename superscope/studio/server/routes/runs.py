"""Which runs are there, what is each, and what is it as one file?"""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ...html import html
from .. import shapes

router = APIRouter()


@router.get("/api/runs")
def runs(request: Request) -> shapes.RunList:
    return request.app.state.library.runs()


@router.get("/api/runs/{run}", responses={200: {"model": shapes.Head}})
def head(request: Request, run: str) -> Response:
    try:
        return Response(request.app.state.library.head(run), media_type="application/json")
    except (OSError, ValueError, LookupError):
        # Nothing is wrong with a run that has only begun.
        if not request.app.state.jobs.makes(run):
            raise
        return JSONResponse({"error": "This run has begun and has nothing to show yet."}, 202)


@router.get("/api/runs/{run}/report.html")
def report(request: Request, run: str) -> Response:
    library = request.app.state.library
    # What the page of a server refuses, this one does too.
    library.head(run)
    name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in run.strip("@"))
    headers = {"content-disposition": f'attachment; filename="superscope-{name}.html"'}
    return Response(html(library.path(run)), media_type="text/html; charset=utf-8", headers=headers)
