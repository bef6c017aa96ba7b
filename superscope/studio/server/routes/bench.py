"""What is tried with the model that is kept, and what came of it?"""

from fastapi import APIRouter, Request, Response

from ...html import embed, html, payload
from .. import shapes

router = APIRouter()


@router.get("/api/bench")
def state(request: Request) -> shapes.BenchState:
    return request.app.state.bench.state()


@router.post("/api/bench")
def start(request: Request, asked: shapes.Try) -> shapes.BenchState:
    return request.app.state.bench.start(asked)


@router.post("/api/bench/stop")
def stop(request: Request) -> shapes.BenchState:
    return request.app.state.bench.stop()


@router.get("/api/bench/{trial}")
def answer(request: Request, trial: str) -> Response:
    report = request.app.state.bench.answer(trial)
    return Response(embed(payload(report) | {"figures": []}), media_type="application/json")


@router.get("/api/bench/{trial}/report.html")
def page(request: Request, trial: str) -> Response:
    text = html(request.app.state.bench.answer(trial))
    headers = {"content-disposition": 'attachment; filename="superscope-bench.html"'}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)


@router.post("/api/bench/{trial}/keep")
def keep(request: Request, trial: str) -> shapes.Kept:
    return request.app.state.bench.keep(trial)
