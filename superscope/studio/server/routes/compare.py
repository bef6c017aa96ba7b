"""What do runs and dictionaries say beside each other?"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from ...html import embed, html, payload
from .. import shapes

router = APIRouter()

Names = Annotated[list[str], Query(min_length=2, max_length=8)]
Threshold = Annotated[float, Query(gt=0, lt=1)]


@router.get("/api/compare/sources")
def sources(request: Request) -> shapes.Comparable:
    return request.app.state.comparisons.sources()


@router.get("/api/compare")
def answer(request: Request, of: Names, threshold: Threshold = 0.7) -> Response:
    report = request.app.state.comparisons.answer(of, threshold)
    return Response(embed(payload(report) | {"figures": []}), media_type="application/json")


@router.get("/api/compare/report.html")
def page(request: Request, of: Names, threshold: Threshold = 0.7) -> Response:
    text = html(request.app.state.comparisons.answer(of, threshold))
    headers = {"content-disposition": 'attachment; filename="superscope-compare.html"'}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
