"""Which rows of a table?"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from .. import shapes
from ..library import ROWS, parse_where

router = APIRouter()


@router.get("/api/runs/{run}/tables/{table}", responses={200: {"model": shapes.Rows}})
def rows(
    request: Request,
    run: str,
    table: str,
    where: Annotated[str, Query(max_length=2000)] = "{}",
    sort: Annotated[str, Query(max_length=200)] = "",
    descending: bool = False,
    limit: Annotated[int, Query(ge=0, le=ROWS)] = ROWS,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    text = request.app.state.library.rows(
        run, table, where=parse_where(where), sort=sort, descending=descending, limit=limit, offset=offset
    )
    return Response(text, media_type="application/json")
