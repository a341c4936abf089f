"""A training outlives the page, the WebUI's restart and its crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lora_trainer.jobs.processes import is_running
from tests.browser.running import ENDED
from tests.browser.tab import shows
from tests.jobs.patience import until
from tests.webui.conftest import draw, training
from tests.webui.host_tab import HostTab
from tests.webui.webui import WebUI


@pytest.fixture(scope="module")
def job(webui: WebUI) -> Iterator[int]:
    """Goes on for as long as the checks take."""
    job = training(webui, "outlives", epochs=1000)
    webui.until_step(job, 1)
    yield job


def goes_on(webui: WebUI, job: int, pid: int) -> int:
    """Waits until the same worker has done another step; returns its number."""
    assert is_running(pid)
    step = webui.ask(f"jobs/{job}")["step"]
    webui.until_step(job, step + 1)
    told = webui.ask(f"jobs/{job}")
    assert told["pid"] == pid and told["attempts"] == 1 and told["status"] == "running", told
    return int(told["step"])


def shown(tab: HostTab, job: int) -> None:
    """The page has come back by itself, or is opened again, and shows the training."""
    tab.ready()
    tab.top("Train LoRA")
    shows(tab.panel("progress"), f"Job {job}: outlives")
    shows(tab.panel("progress"), "/ 7000")


def test_reload_ui_goes_past_a_training(webui: WebUI, tab: HostTab, job: int) -> None:
    pid = webui.ask(f"jobs/{job}")["pid"]
    before = goes_on(webui, job, pid)
    for _ in range(2):  # each makes the page anew, and calls the script again
        starts = webui.starts()
        tab.top("Settings")
        tab.page.locator("#settings_restart_gradio").click()
        webui.until_started(starts)
        tab.page.wait_for_load_state()
        shown(tab, job)
    assert goes_on(webui, job, pid) > before
    tab.shoot("16-after-reload-ui")
    assert f'File "{webui.extension}' not in webui.said(), webui.said()[-6000:]  # no traceback of ours


def test_a_picture_is_made_in_the_training_after_a_reload(webui: WebUI, job: int) -> None:
    """The lease is that of the one supervisor there is."""
    pid = webui.ask(f"jobs/{job}")["pid"]
    draw(webui, "meadow")
    goes_on(webui, job, pid)


def test_apply_and_restart_goes_past_a_training(webui: WebUI, tab: HostTab, job: int, facts: dict[str, Any]) -> None:
    pid = webui.ask(f"jobs/{job}")["pid"]
    before = goes_on(webui, job, pid)
    tab.top("Extensions")
    tab.page.locator("#tabs_extensions > .tab-nav").get_by_text("Installed", exact=True).click()
    shows(tab.page.locator("#extensions"), "lora-trainer")
    tab.page.get_by_role("button", name="Apply and restart UI").click()
    webui.until_ended()
    webui.start()
    shown(tab, job)
    after = goes_on(webui, job, pid)
    assert after > before
    facts["restart"] = {"step before": before, "step after": after}


def test_a_crash_goes_past_a_training(
    webui: WebUI, new_tab: Callable[..., HostTab], job: int, facts: dict[str, Any]
) -> None:
    pid = webui.ask(f"jobs/{job}")["pid"]
    before = goes_on(webui, job, pid)
    webui.kill()
    webui.start()
    tab = new_tab(webui)
    tab.open()
    shown(tab, job)
    after = goes_on(webui, job, pid)
    assert after > before
    facts["crash"] = {"step before": before, "step after": after}
    tab.shoot("17-after-a-crash")
    webui.ask(f"jobs/{job}/stop", "POST")
    assert webui.until_status(job, *ENDED)["status"] == "stopped"
    until(lambda: not is_running(pid))


def test_the_page_comes_up_in_the_language_that_is_set(webui: WebUI, new_tab: Callable[..., HostTab]) -> None:
    """The WebUI puts our words into its page with its own."""
    webui.sdapi("options", "POST", {"localization": "ja_JP"})
    try:
        webui.kill()
        webui.start()
        tab = new_tab(webui)
        tab.page.goto(webui.address)
        tab.ready()
        shows(tab.page.locator("#tabs > .tab-nav").first, "LoRAトレーニング")
        tab.top("LoRAトレーニング")
        shows(tab.page.locator("#lora_trainer_start_training"), "トレーニング")
        tab.shoot("18-japanese")
    finally:
        webui.sdapi("options", "POST", {"localization": "None"})
