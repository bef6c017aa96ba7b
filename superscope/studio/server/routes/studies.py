"""What can be started?"""

from fastapi import APIRouter

from .. import shapes
from ..forms import forms

router = APIRouter()


@router.get("/api/studies")
def studies() -> list[shapes.StudyForm]:
    return list(forms())
