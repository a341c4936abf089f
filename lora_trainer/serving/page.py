"""What a WebUI does to gradio's page for its extensions, and nothing fetched from other machines."""

from __future__ import annotations

import json
import re
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lora_trainer.packages import ROOT

PREFIX = "/lora-trainer-page"
HERE = Path(__file__).resolve().parent
LOCALIZATIONS = ROOT / "localizations"
LANGUAGE_COOKIE = "lora_trainer_language"
_ELSEWHERE = re.compile(
    r'<script\b[^>]*\bsrc="(?:https?:)?//[^>]*>\s*</script>|<link\b[^>]*\bhref="(?:https?:)?//[^>]*>', re.IGNORECASE
)


def add_files(app: FastAPI) -> None:
    """The routes of our scripts and style, which anybody may read, as they are public."""
    for name, folder in (("javascript", ROOT / "javascript"), ("serving", HERE / "files")):
        app.mount(f"{PREFIX}/{name}", StaticFiles(directory=folder))


def languages() -> list[str]:
    """Of the translations that there are, such as ja_JP."""
    return sorted(path.stem for path in LOCALIZATIONS.glob("*.json"))


def language_of(headers: Headers) -> str:
    """The one that the page's chooser has put into a cookie ("" there is English), else the browser's, else ""."""
    try:
        chosen = SimpleCookie(headers.get("cookie", "")).get(LANGUAGE_COOKIE)
    except CookieError:
        chosen = None
    if chosen is not None:
        return chosen.value if chosen.value in languages() else ""
    for wanted in headers.get("accept-language", "").split(","):
        code = wanted.partition(";")[0].strip().lower().replace("-", "_")
        if code.split("_")[0] == "en":
            break
        for name in languages():
            if code == name.lower() or code == name.lower().split("_")[0]:
                return name
    return ""


def head(language: str) -> str:
    """What a WebUI puts into the page: the words of its language, the extension's scripts and its style."""
    file = LOCALIZATIONS / f"{language}.json"
    words = json.loads(file.read_text(encoding="utf-8")) if language else {}
    facts = {"localization": words, "loraTrainerLanguages": languages(), "loraTrainerLanguage": language}
    # A script of a page ends at "</", wherever that stands.
    lines = [f"window.{name} = {json.dumps(value).replace('<', chr(92) + 'u003c')};" for name, value in facts.items()]
    scripts = [*sorted((ROOT / "javascript").glob("*.js")), *sorted((HERE / "files").glob("*.js"))]
    styles = [ROOT / "style.css", *sorted((HERE / "files").glob("*.css"))]
    return "\n".join(
        [
            f"<script>{''.join(lines)}</script>",
            *(f"<style>{style.read_text(encoding='utf-8')}</style>" for style in styles if style.is_file()),
            *(f'<script defer src="{_address(script)}"></script>' for script in scripts),
        ]
    )


def made_ours(html: str, language: str) -> str:
    """gradio's page with our head, and without what it would fetch from other machines."""
    html = _ELSEWHERE.sub("", html)
    return html.replace("</head>", f"{head(language)}\n</head>", 1)


class Page:
    """The app, with the page at its root made ours on its way out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in ("", "/"):
            await self._app(scope, receive, _Rewriting(send, language_of(Headers(scope=scope))))
        else:
            await self._app(scope, receive, send)


class _Rewriting:
    """Holds an answer back until it is whole; what is no HTML passes as it is."""

    def __init__(self, send: Send, language: str) -> None:
        self._send, self._language = send, language
        self._start: dict[str, Any] | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and "text/html" in Headers(raw=message["headers"]).get(
            "content-type", ""
        ):
            self._start = dict(message)
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._send_whole(self._start)

    async def _send_whole(self, start: dict[str, Any]) -> None:
        body = made_ours(self._body.decode("utf-8"), self._language).encode("utf-8")
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["content-length"] = str(len(body))
        headers["cache-control"] = "no-cache"
        headers["vary"] = "Cookie, Accept-Language"
        await self._send({**start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})


def _address(script: Path) -> str:
    """Relative to the page; with the file's time, so that a browser never keeps an older one."""
    room = "javascript" if script.parent == ROOT / "javascript" else "serving"
    return f"{PREFIX[1:]}/{room}/{script.name}?{script.stat().st_mtime_ns}"
