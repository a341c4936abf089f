"""Who may use the routes. They lie outside the host's own checks, so that its users and its login are asked here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request

from lora_trainer.api.answers import Refused

PREFIX = "/lora-trainer"
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
CHALLENGE = {"WWW-Authenticate": 'Basic realm="lora-trainer", charset="UTF-8"'}
CLOSED = (
    "The API is off, as this WebUI can be reached from other machines and asks nobody for a password."
    " Start it with --api-auth USER:PASSWORD, or allow it in the settings, under Train LoRA."
)


@dataclass(frozen=True)
class Access:
    """`users`: names and passwords of the host's --api-auth; `gradio_app`: the app whose login cookie counts too.

    Where there is neither, everybody on this machine may use the API, and nobody else unless that is
    `allowed_remotely`. A host that is `listening_remotely`, or that is called by another name than this machine's own
    (a tunnel's, or that of a page which has turned its own name to this address), counts as reached from elsewhere.
    """

    users: Mapping[str, str] | None
    gradio_app: Any
    listening_remotely: bool
    allowed_remotely: bool
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), init=False, repr=False, compare=False)

    async def check(self, request: Request) -> None:
        """Raises Refused: 401 or 403. To be depended on by every route."""
        if request.method in CHANGING:
            _check_origin(request)
        if self._is_signed(request) or self._is_known(request):
            return
        if self._asks():
            raise Refused(401, "Give a user and password of this WebUI, or log in to it.", CHALLENGE)
        if not self.allowed_remotely and (self.listening_remotely or not _is_local(request)):
            raise Refused(403, CLOSED)

    def signed(self, method: str, path: str, seconds: int) -> str:
        """The query with which anybody may send this one request until the time is over, or this process ends."""
        expires = str(int(time.time()) + seconds)
        return f"expires={expires}&signature={self._signature(method, path, expires)}"

    def _is_signed(self, request: Request) -> bool:
        expires, signature = (request.query_params.get(name, "") for name in ("expires", "signature"))
        if not re.fullmatch(r"[0-9]{1,15}", expires) or int(expires) < time.time():
            return False
        below = request.scope["path"].partition(PREFIX)[2]  # a host's own prefix may stand before ours
        wanted = self._signature(request.method, PREFIX + below, expires)
        return hmac.compare_digest(wanted.encode(), signature.encode("utf-8", "replace"))

    def _signature(self, method: str, path: str, expires: str) -> str:
        message = f"{method} {path} {expires}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    def _asks(self) -> bool:
        app = self.gradio_app
        return bool(self.users or getattr(app, "auth", None) or getattr(app, "auth_dependency", None))

    def _is_known(self, request: Request) -> bool:
        return self._has_password(request) or self._is_logged_in(request)

    def _has_password(self, request: Request) -> bool:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if not self.users or scheme.lower() != "basic":
            return False
        try:
            user, colon, password = base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        wanted = self.users.get(user)
        known = hmac.compare_digest(password.encode(), (wanted or secrets.token_hex()).encode())
        return bool(colon) and wanted is not None and known

    def _is_logged_in(self, request: Request) -> bool:
        """Whether gradio knows the cookie: `access-token` in 3.41, `access-token-` and the app's own mark in 4.40."""
        app = self.gradio_app
        if dependency := getattr(app, "auth_dependency", None):
            return dependency(request) is not None
        if not getattr(app, "auth", None):
            return False
        mark = getattr(app, "cookie_id", None)
        names = [f"{name}-{mark}" if mark else name for name in ("access-token", "access-token-unsecure")]
        token = next((request.cookies[name] for name in names if request.cookies.get(name)), None)
        return token is not None and token in getattr(app, "tokens", {})


def _check_origin(request: Request) -> None:
    """A page of another site may not send what changes something: browsers say whose page it is.

    What a proxy says of the name it was called by counts, too: no page can make a browser say that.
    """
    origin = request.headers.get("origin")
    if origin is None:  # no browser
        return
    own = {request.headers.get(name, "").lower() for name in ("host", "x-forwarded-host")}
    if origin.lower().partition("://")[2] not in own - {""}:
        raise Refused(403, "The request comes from a page of another site, and nothing was done.")


def _is_local(request: Request) -> bool:
    """Whether no proxy sent it, to a name of this very machine that no other machine can give itself."""
    if {"x-forwarded-for", "x-forwarded-host", "forwarded"} & set(request.headers):
        return False
    try:
        name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
