"""What becomes of a page on its way to the browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, PlainTextResponse

from lora_trainer.packages import ROOT
from lora_trainer.serving import page
from tests.api.conftest import Client

HTML = """<!doctype html><html><head><title>é</title>
<link rel="preconnect" href="https://fonts.example.com" />
<link rel="stylesheet" href="./own.css">
<link
    rel="preconnect"
    href="https://fonts.example.org"
    crossorigin="anonymous" />
<script
    src="https://cdn.example.com/frame.js" async></script>
<script src="own.js"></script>
</head><body>https://example.com/ is only text</body></html>"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    for name, words in {"ja_JP": {"Train": "訓練 </script>"}, "zh_CN": {"Train": "训练"}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(words), encoding="utf-8")
    monkeypatch.setattr(page, "LOCALIZATIONS", tmp_path)
    app = FastAPI()
    app.get("/", response_class=HTMLResponse)(lambda: HTML)
    app.get("/other", response_class=HTMLResponse)(lambda: HTML)
    app.get("/text", response_class=PlainTextResponse)(lambda: HTML)
    page.add_files(app)
    return Client(page.Page(app))  # type: ignore[arg-type]  # an ASGI app around one


def words_of(html: str) -> dict[str, str]:
    found = re.search(r"window\.localization = (\{.*?\});window", html)
    assert found
    words: dict[str, str] = json.loads(found[1])
    return words


def test_what_other_machines_serve_is_left_out_and_the_rest_stays(client: Client) -> None:
    answer = client.get("/")
    assert int(answer.headers["content-length"]) == len(answer.content)
    html = answer.text
    assert not re.search(r"example\.(org|com)(?!/ is only text)", html)
    kept = ("<title>é</title>", "./own.css", '<script src="own.js"></script>', "https://example.com/ is only text")
    assert all(part in html for part in kept)


def test_the_extensions_scripts_are_there_and_can_be_read(client: Client) -> None:
    html = client.get("/").text
    scripts = re.findall(r'<script defer src="([^"]+)"', html)
    there = [path.name for path in (ROOT / "javascript").glob("*.js")]
    assert there and set(there) <= {re.split(r"[/?]", script)[-2] for script in scripts}
    assert all(client.get(f"/{script}").headers["content-type"].startswith("text/javascript") for script in scripts)
    assert (ROOT / "style.css").read_text(encoding="utf-8").strip() in html


def test_another_page_passes_as_it_is(client: Client) -> None:
    assert client.get("/other").text == client.get("/text").text == HTML


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, ""),
        ({"Accept-Language": "ja"}, "ja_JP"),
        ({"Accept-Language": "de-DE,zh-CN;q=0.8,en;q=0.5"}, "zh_CN"),
        ({"Accept-Language": "en-GB,ja;q=0.8"}, ""),
        ({"Accept-Language": "ja", "Cookie": "a=b; lora_trainer_language=zh_CN"}, "zh_CN"),
        ({"Accept-Language": "ja", "Cookie": "lora_trainer_language="}, ""),
        ({"Accept-Language": "ja", "Cookie": "lora_trainer_language=../../secrets"}, ""),
    ],
)
def test_the_words_are_those_of_the_chosen_language_or_else_of_the_browser(
    client: Client, headers: dict[str, str], language: str
) -> None:
    html = client.get("/", headers=headers).text
    assert f'window.loraTrainerLanguage = "{language}"' in html
    assert 'window.loraTrainerLanguages = ["ja_JP", "zh_CN"]' in html
    wanted = {"ja_JP": {"Train": "訓練 </script>"}, "zh_CN": {"Train": "训练"}, "": {}}
    assert words_of(html) == wanted[language]


def test_no_word_ends_the_pages_script(client: Client) -> None:
    assert "訓練 </script>" not in client.get("/", headers={"Accept-Language": "ja"}).text
