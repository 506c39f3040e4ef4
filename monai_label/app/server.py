"""MONAI Label's web application, which also understands QuPath: the extension does not say that its requests are JSON.

FastAPI takes a request without a content type for plain bytes and refuses it (status 422) since its version 0.132.
"""

from __future__ import annotations

from fastapi import Request, Response
from monailabel.app import app
from starlette.middleware.base import RequestResponseEndpoint


@app.middleware("http")
async def take_as_json(request: Request, answer: RequestResponseEndpoint) -> Response:
    """Read a request for a region without a content type as JSON."""
    if request.url.path.startswith("/infer/wsi/") and "content-type" not in request.headers:
        request.scope["headers"].append((b"content-type", b"application/json"))
    return await answer(request)
