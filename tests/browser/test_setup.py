"""The training packages in the page: what went wrong with them, their installation as it goes on, and its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from lora_trainer.packages import ROOT
from tests.browser.server import NEW, OLD, Server
from tests.browser.tab import Tab, shows

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows starts no script by its first line")
# In the place of the Python that trains: fails until `room` lies beside it, and then installs until `go` does. Every
# job that it is to do fails for want of a package.
PYTHON = """
import json, sys, time
from pathlib import Path
folder = Path(__file__).parent
if "worker" in sys.argv:
    sys.exit("ModuleNotFoundError: No module named 'diffusers'")
if not (folder / "room").exists():
    print("ERROR: [Errno 28] No space left on device")
    why = "The packages could not be installed: the disk is full. Connect to the internet and start again."
    print(json.dumps({"state": "failed", "line": why}))
    sys.exit(1)
which = "Processing" if "--again" in sys.argv else "Collecting"
print(json.dumps({"line": f"{which} tiny-trainer==1.0", "share": 0.5}), flush=True)
while not (folder / "go").exists():
    time.sleep(0.01)
print(json.dumps({"state": "ready", "line": "The training packages are installed."}))
"""


@pytest.fixture(params=[OLD, NEW], ids=lambda version: f"gradio {version}")
def server(request: pytest.FixtureRequest, browser: Browser, tmp_path: Path) -> Iterator[Server]:
    if request.param == OLD and sys.version_info >= (3, 13):
        pytest.skip("gradio 3.41.2 needs numpy 1, which there is not for this Python; neither do its WebUIs run in it.")
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{PYTHON}", encoding="utf-8")
    python.chmod(0o755)
    server = Server(request.param, tmp_path / "page", "--python", str(python))
    server.start()
    yield server
    server.close()


@pytest.fixture
def tab(server: Server, browser: Browser) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")
    tab = Tab(context.new_page(), server.address, ROOT / "tests" / "screenshots" / f"gradio-{server.gradio}")
    tab.open()
    yield tab
    context.close()
    assert not tab.faults


def test_the_packages_are_installed_in_view(tab: Tab, server: Server, tmp_path: Path) -> None:
    panel, install = tab.panel("setup"), tab.panel("install")
    shows(panel, "the disk is full")
    expect(install).to_have_text("Try again")
    panel.locator("summary").click()
    shows(tab.panel("setup_log"), "No space left on device")
    tab.shoot("0-setup-failed", panel)
    tab.show("Queue & history")
    shows(tab.panel("queue"), "the disk is full")
    tab.show("Train")

    (tmp_path / "room").touch()
    install.click()
    shows(panel, "Collecting tiny-trainer==1.0")
    expect(panel.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    expect(install).to_be_hidden()
    tab.shoot("0-setup", panel)
    tab.reload()
    shows(panel, "Collecting tiny-trainer==1.0")

    (tmp_path / "go").touch()
    expect(panel).to_be_hidden()
    shows(tab.page.locator(".lora-trainer-toast"), "The training packages are installed.")
    tab.reload()
    expect(panel).to_be_hidden()

    (tmp_path / "go").unlink()
    small = {"resolution": [64, 64], "buckets": False, "output_name": "zdm"}
    config = {"base_model": "demo/base.safetensors", "subsets": [{"folder": "demo"}], **small}
    assert server.ask("jobs", "POST", {"config": config})
    shows(panel, "A package that training needs is missing or damaged.")
    tab.shoot("0-setup-damaged", panel)
    install.click()
    shows(panel, "Processing tiny-trainer==1.0")
    (tmp_path / "go").touch()
    expect(panel).to_be_hidden()
