"""What runs, and what shall run?"""

from fastapi import APIRouter, Request

from .. import shapes

router = APIRouter()


@router.get("/api/jobs")
def jobs(request: Request) -> shapes.JobList:
    return request.app.state.jobs.all()


@router.post("/api/jobs")
def start(request: Request, asked: shapes.StartJob) -> shapes.Job:
    return request.app.state.jobs.start(asked.study, asked.settings)


@router.post("/api/jobs/{job}/cancel")
def cancel(request: Request, job: str) -> shapes.Job:
    return request.app.state.jobs.cancel(job)


@router.post("/api/jobs/{job}/resume")
def resume(request: Request, job: str) -> shapes.Job:
    return request.app.state.jobs.resume(job)
