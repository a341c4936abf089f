"""Without the training packages: the tab says so, installs them as it is asked to, and goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from playwright.sync_api import expect

from lora_trainer import packages
from tests.browser.tab import shows
from tests.test_packages import write_wheel
from tests.webui.conftest import training
from tests.webui.host_tab import HostTab
from tests.webui.program import REAL
from tests.webui.webui import WebUI

# This Python has the project installed, as no WebUI's has: it is not to be seen there.
HIDING = """
from importlib import metadata
_all = metadata.distributions
metadata.distributions = lambda **about: (d for d in _all(**about) if d.metadata["Name"] != "lora-trainer")
"""

pytestmark = pytest.mark.skipif(bool(REAL), reason="the real one has the packages, or gets the true ones by hand")


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Where pip finds packages of the right names, and nothing in them."""
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


@pytest.fixture
def without(installed: WebUI, index: Path, tmp_path: Path) -> Iterator[WebUI]:
    """The WebUI in a Python that has torch and nothing of ours, and reaches no package index but that folder."""
    (tmp_path / "sitecustomize.py").write_text(HIDING, encoding="utf-8")
    torch = metadata.distribution("torch").locate_file("")  # in a private folder, where this Python has none
    environment = {
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(torch))),
        packages.PARENT_VARIABLE: str(tmp_path / "packages"),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }
    kept = installed.program
    installed.program = replace(kept, environment={**kept.environment, **environment})
    installed.start()
    yield installed
    installed.kill()
    installed.program = kept


def test_what_is_missing_is_said_and_installed_from_the_tab(
    without: WebUI, index: Path, new_tab: Callable[..., HostTab]
) -> None:
    tab = new_tab(without)
    tab.open()
    panel = tab.panel("setup")
    expect(panel).to_have_attribute("data-state", "missing")
    tab.shoot("21-packages-missing", panel)
    job = training(without, "waits", epochs=1)
    tab.panel("install").click()
    expect(panel).to_have_attribute("data-state", "failed")
    expect(tab.panel("install")).to_have_text("Try again")
    tab.shoot("22-packages-not-found", panel)
    assert without.ask(f"jobs/{job}")["status"] == "queued"
    assert without.ask("queue")["supervisor"]["watching"]
    fill(index)
    tab.panel("install").click()
    expect(panel).to_be_hidden(timeout=120_000)
    assert without.ask("setup")["state"] == "ready"
    shows(tab.panel("progress"), "waits")


def fill(index: Path) -> None:
    for line in packages.for_torch(metadata.version("torch")):
        requirement, _, version = line.partition(";")[0].strip().partition("==")
        write_wheel(index, requirement.replace("-", "_"), version, requirement.replace("-", "_").lower())
