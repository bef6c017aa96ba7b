"""The page itself, at every address that is none of the server's data."""

from fastapi import APIRouter, Request, Response

from ...html import shell

router = APIRouter()


@router.get("/{address:path}")
def page(request: Request, address: str) -> Response:
    if address.startswith("api/"):
        raise LookupError("there is nothing at this address.")
    text, policy = shell()
    headers = {"content-security-policy": f"{policy}; frame-ancestors 'none'"}
    return Response(text, media_type="text/html; charset=utf-8", headers=headers)
