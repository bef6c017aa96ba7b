"""What has changed? A stream of server-sent events: all jobs, whenever something about one of them is new."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from ..jobs import Jobs, Refused

MOST = 16
"""Most streams at a time."""
_POLL = 0.2
_BEAT = 15.0

router = APIRouter()


@router.get("/api/events")
async def events(request: Request) -> StreamingResponse:
    state = request.app.state
    state.streams = getattr(state, "streams", 0)
    if state.streams >= MOST:
        raise Refused(f"{MOST} pages of this studio are open already. Close one.")

    async def stream() -> AsyncIterator[str]:
        state.streams += 1
        try:
            jobs: Jobs = state.jobs
            seen, silent = -1, 0.0
            while not await request.is_disconnected():
                if jobs.revision != seen:
                    seen, silent = jobs.revision, 0.0
                    yield f"event: jobs\ndata: {jobs.all().model_dump_json()}\n\n"
                elif silent >= _BEAT:
                    silent = 0.0
                    yield ": still here\n\n"
                await asyncio.sleep(_POLL)
                silent += _POLL
        finally:
            state.streams -= 1

    return StreamingResponse(stream(), media_type="text/event-stream")
