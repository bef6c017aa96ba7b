"""Which features hold these words, where do all of them stand, and which answer to a text of one's own?"""

import time
from typing import Annotated

import torch
from fastapi import APIRouter, Query, Request, Response

from ...html import embed, pack
from .. import shapes
from ..finding import parse_asked
from ..library import parse_where

router = APIRouter()


@router.get("/api/runs/{run}/columns/{table}")
def columns(
    request: Request,
    run: str,
    table: str,
    names: Annotated[list[str], Query(max_length=20)],
    where: Annotated[str, Query(max_length=2000)] = "{}",
) -> shapes.Columns:
    return request.app.state.library.columns(run, table, names, parse_where(where))


@router.get("/api/runs/{run}/search/{table}", responses={200: {"model": shapes.Found}})
def search(
    request: Request,
    run: str,
    table: str,
    asked: Annotated[str, Query(max_length=4000)] = "{}",
    where: Annotated[str, Query(max_length=2000)] = "{}",
    limit: Annotated[int, Query(ge=0, le=2000)] = 60,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    began = time.perf_counter()
    question = parse_asked(parse_where(asked), limit=limit, offset=offset)
    answer, rows = request.app.state.library.find(run, table, parse_where(where), question)
    found = {
        "matching": answer.matching,
        "of": answer.of,
        "keys": pack(torch.from_numpy(answer.keys.copy())),
        "columns": rows,
        "seconds": time.perf_counter() - began,
    }
    return Response(embed(found), media_type="application/json")


@router.post("/api/runs/{run}/text")
def text(request: Request, run: str, asked: shapes.AskText) -> shapes.TextReading:
    state = request.app.state
    return state.reader.read(state.library.folder(run), asked)
