"""Requests that come while the WebUI starts, of pages of ours that are still open from before."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def bear_early_requests() -> None:
    """With --api the WebUI ends at its start, as it adds a layer to an app that has answered something already.

    It takes the finished layers away before it adds its own ones, all but this one.
    """
    from modules import shared

    if not getattr(shared.cmd_opts, "api", False):
        return
    from modules.api import api

    add = api.api_middleware

    def add_anew(app: Any) -> None:
        app.middleware_stack = None  # it is built again at the next request
        add(app)

    api.api_middleware = add_anew
