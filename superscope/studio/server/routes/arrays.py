"""Which numbers does an array hold?"""

from fastapi import APIRouter, Request

from .. import shapes

router = APIRouter()


@router.get("/api/runs/{run}/arrays/{name}")
def array(request: Request, run: str, name: str) -> shapes.Packed:
    return request.app.state.library.array(run, name)
