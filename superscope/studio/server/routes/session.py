"""What is this server, and what will it do?"""

from fastapi import APIRouter, Request

from ...._version import __version__
from .. import shapes

router = APIRouter()


@router.get("/api/session")
def session(request: Request) -> shapes.Session:
    state = request.app.state
    opens = state.library.id_of(state.place.opens) if state.place.opens else ""
    why_not = state.jobs.why_not
    return shapes.Session(
        version=__version__, folder=str(state.place.root), can_start=not why_not, why_not=why_not, opens=opens
    )
