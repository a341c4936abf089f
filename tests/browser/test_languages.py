"""The page in Japanese and in Chinese: gradio's own words, ours, and sentences that the server puts together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import TIMEOUT_MS
from tests.browser.server import Server
from tests.browser.tab import Tab

LEFT_IN_ENGLISH = """() => {
    const words = window.localization;
    const nodes = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT);
    const found = new Set();
    while (nodes.nextNode()) {
        const text = nodes.currentNode.data.trim();
        if (Object.hasOwn(words, text) && words[text] !== text) found.add(text);
    }
    return [...found];
}"""

SENTENCES = {
    "must be at least 1": "1 以上にしてください",
    "must be a whole number, not text": "文字列ではなく、整数にしてください",  # what is in it is said, too
    "Use a whole number from 1 to 1024.": "1～1024 の整数にしてください。",
    "10_a/1.png: is an empty file. Copy it again, or remove it.": (
        "10_a/1.png: 空のファイルです。コピーし直すか、除いてください。"
    ),
    "10_a/1.png: 64 x 64 pixels would be enlarged 2.56 times to be trained at 512 x 512.": (
        "10_a/1.png: 64 x 64 ピクセルの画像が拡大されます：512 x 512 で学習するために 2.56 倍。"
    ),
    "A guess from another run on CPU: sd15, rank 32, as many pixels a batch as 64x64.": (
        "CPU での別の実行からの推定：sd15、Dim 32、1 バッチの画素数 64x64 相当。"
    ),
    "Somebody's pictures": "Somebody's pictures",  # no "{count} pictures"
    "10_a: of my own": "10_a: of my own",
}


@pytest.fixture
def opened(server: Server, browser: Browser, tmp_path: Path) -> Iterator[Callable[[str], Tab]]:
    """The page in a browser whose user reads that language."""
    contexts = []

    def opened(locale: str) -> Tab:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale=locale)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        tab = Tab(context.new_page(), server.address, tmp_path)
        tab.open()
        return tab

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("locale", "start", "rank"), [
    ("ja-JP", "今すぐトレーニング", "ネットワークサイズ"),
    ("zh-CN", "立即训练", "网络大小"),
])  # fmt: skip
def test_nothing_on_the_page_is_left_in_english(
    opened: Callable[[str], Tab], locale: str, start: str, rank: str
) -> None:
    tab = opened(locale)
    expect(tab.panel("start_training")).to_have_text(start)
    tab.field("rank")
    expect(tab.page.locator("#lora_trainer_rank")).to_contain_text(rank)
    assert tab.page.evaluate(LEFT_IN_ENGLISH) == []
    assert tab.page.evaluate("document.documentElement.lang") == locale


def test_the_chosen_language_stays(opened: Callable[[str], Tab]) -> None:
    tab = opened("ja-JP")
    for language, title in (("zh_CN", "我的 LoRA"), ("", "My LoRAs")):
        with tab.page.expect_navigation():
            tab.page.locator("#lora_trainer_language").select_option(language)
        tab.ready()
        expect(tab.page.locator("#lora_trainer_tabs > .tab-nav")).to_contain_text(title)
    tab.reload()
    expect(tab.page.locator("#lora_trainer_tabs > .tab-nav")).to_contain_text("My LoRAs")


def test_the_servers_sentences_are_translated(opened: Callable[[str], Tab]) -> None:
    page = opened("ja-JP").page
    assert {told: page.evaluate("told => loraTrainer.say(told)", told) for told in SENTENCES} == SENTENCES
