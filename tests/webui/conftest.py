"""A WebUI with the extension in it, which a module's checks share, as the real ones take long to start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from lora_trainer.config import Config
from lora_trainer.packages import ROOT
from tests.browser.conftest import CLIPBOARD, TIMEOUT_MS, browser, make_tagger, mascot
from tests.webui.host_tab import HostTab
from tests.webui.pictures import Drawn, picture_of
from tests.webui.program import REAL, Program, real, repository, stand_in
from tests.webui.webui import WebUI

__all__ = ["browser", "mascot"]

PICTURES = ROOT / "tests" / "screenshots" / "webui"
SIZE = 64


@pytest.fixture(scope="session", params=["real"] if REAL else ["a1111", "forge"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    if not shutil.which("git"):
        pytest.skip("git is not installed: extensions are installed with it.")
    if REAL:
        return real()
    if request.param == "a1111" and sys.version_info >= (3, 13):
        pytest.skip("gradio 3.41.2 needs numpy 1, which there is not for this Python; neither does A1111 run in it.")
    return stand_in(request.param, tmp_path_factory.mktemp(f"program-{request.param}"))


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A git repository of this working tree."""
    return repository(tmp_path_factory.mktemp("remote") / "lora-trainer")


@pytest.fixture(scope="session")
def facts(program: Program) -> Iterator[dict[str, Any]]:
    """What was measured; written beside the screenshots."""
    measured: dict[str, Any] = {}
    yield measured
    file = PICTURES / program.name / "facts.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps({**known, **measured}, indent=1, sort_keys=True), encoding="utf-8")


@pytest.fixture(scope="module")
def bare(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """Not started, and without the extension; it has two checkpoints, where it is not a real one with its own."""
    webui = WebUI(program, tmp_path_factory.mktemp("data"))
    if not REAL:
        checkpoints = webui.data / "models" / "Stable-diffusion"
        checkpoints.mkdir(parents=True)
        base = (ROOT / "lora_trainer" / "demo" / "base.safetensors").read_bytes()
        (checkpoints / "sprite.safetensors").write_bytes(base)
        (checkpoints / "other.safetensors").write_bytes(base[:-1] + bytes([base[-1] ^ 1]))
        options = {"sd_model_checkpoint": "sprite.safetensors"}
        (webui.data / "config.json").write_text(json.dumps(options), encoding="utf-8")
    yield webui
    webui.close()


@pytest.fixture(scope="module")
def installed(bare: WebUI, url: str) -> WebUI:
    """Not started; the extension is in its folder, with the test tagger in place of a downloaded one."""
    subprocess.run(["git", "clone", "--quiet", url, str(bare.extension)], check=True)
    make_tagger(bare.extension / "models" / "taggers" / Config().tagger)
    shutil.copytree(ROOT / "lora_trainer" / "demo" / "mascot", bare.extension / "datasets" / "demo")
    return bare


@pytest.fixture(scope="module")
def webui(installed: WebUI) -> WebUI:
    installed.start()
    return installed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Has the fixtures know that a check has failed, which then tell what the WebUI has said."""
    report = yield
    if report.when == "call" and report.failed:
        item.failed = True  # type: ignore[attr-defined]
    return report


@pytest.fixture
def new_tab(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Callable[..., HostTab]]:
    """Another browser of another user, for the WebUI that is given."""
    tabs, shown = [], []

    def opened(webui: WebUI) -> HostTab:
        shown.append(webui)
        context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB", permissions=CLIPBOARD)
        context.set_default_timeout(TIMEOUT_MS)
        tab = HostTab(context.new_page(), webui.address, PICTURES / webui.program.name)
        tabs.append(tab)
        return tab

    yield opened
    faults = [fault for tab in tabs for fault in tab.faults]
    failed = getattr(request.node, "failed", False)
    for tab, webui in zip(tabs, shown):
        if failed:
            tab.page.screenshot(path=webui.data / "failed.png", full_page=True)
            print(f"The page: {webui.data / 'failed.png'}\n{webui.said()[-6000:]}")
        tab.page.context.close()
    assert not faults


@pytest.fixture
def tab(new_tab: Callable[..., HostTab], webui: WebUI) -> HostTab:
    tab = new_tab(webui)
    tab.open()
    return tab


def training(webui: WebUI, name: str, epochs: int, repeats: int = 1, **settings: Any) -> int:
    """Adds a training of the demo's seven pictures, as small and quick as can be; returns the job's number."""
    folder = str(webui.extension / "datasets" / "demo" / "10_zorble")
    config = {
        "base_model": checkpoint(webui),
        "subsets": [{"folder": folder, "repeats": repeats}],
        "trigger_word": "zorble",
        "resolution": [SIZE, SIZE],
        "buckets": False,
        "epochs": epochs,
        "batch_size": 1,
        "seed": 20,
        "rank": 4,
        "alpha": 4.0,
        "learning_rate": 1e-3,
        "optimizer": "AdamW",
        "mixed_precision": "no",
        "preview_every_epochs": 0,
        "preview_at_start": False,
        "output_name": name,
        **settings,
    }
    return int(webui.ask("jobs", "POST", {"config": config})["id"])


def checkpoint(webui: WebUI) -> str:
    """The file that the WebUI draws with."""
    chosen = webui.sdapi("options")["sd_model_checkpoint"] or ""
    files = [Path(each["filename"]) for each in webui.sdapi("sd-models")]
    return str(next((file for file in files if chosen.startswith(file.name)), files[0]))


def draw(webui: WebUI, prompt: str, **settings: Any) -> Drawn:
    """A picture by the WebUI's API, small and quick."""
    body = {"prompt": prompt, "seed": 7, "steps": 4, "cfg_scale": 2, "width": SIZE, "height": SIZE, **settings}
    return picture_of(webui.sdapi("txt2img", "POST", {"sampler_name": "Euler a", **body})["images"][0])
