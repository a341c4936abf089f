"""What the tab costs its host and its user: `python -m benchmarks.tab --json OUT`, in gradio 3.41.2 and 4.40.0.

import_s, import_rss_mb  what the WebUI's start takes for the extension's script, with the modules that it brings in for
                         the tab and the routes; gradio and Pillow are loaded before. Medians of ROUNDS processes
build_s                  the tab's components made, besides
first_paint_s            with 10,000 pictures in the set: from the navigation to the first painted thumbnails, as the
                         browser tells it. The median of ROUNDS visits; `first_visit_s` is one without anything cached
page_s                   of that: until gradio itself has made the tab
slowest_click_s          from a click to the first frame in which anything of the page has changed, the slowest of all
                         buttons, tabs, folds and pictures of every panel; `slowest_click` says which. `nothing_seen`
                         are those at which nothing has changed
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from lora_trainer.files import write_text
from lora_trainer.packages import ROOT, install
from tests.browser.conftest import launched
from tests.browser.server import FOLDERS, Server
from tests.browser.tab import SUB_TABS, Tab

SET, SIDE = "many", 96
ROUNDS = 5
IMPORT = """
import importlib.util, json, sys, time, types
sys.path[:0] = sys.argv[2:]
import gradio, numpy, PIL.Image

def megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

tabs, started = [], []
callbacks = types.ModuleType("modules.script_callbacks")
callbacks.on_ui_tabs, callbacks.on_app_started = tabs.append, started.append
sys.modules["modules"] = types.ModuleType("modules")
sys.modules["modules.script_callbacks"] = sys.modules["modules"].script_callbacks = callbacks
before, began = megabytes(), time.perf_counter()
spec = importlib.util.spec_from_file_location("lora_trainer_tab", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
import lora_trainer.api, lora_trainer.jobs.supervisor, lora_trainer.ui.tab
seconds, grown, began = time.perf_counter() - began, megabytes() - before, time.perf_counter()
with gradio.Blocks():
    tabs[0]()[0][0].render()
print(json.dumps({"import_s": seconds, "import_rss_mb": grown, "build_s": time.perf_counter() - began}))
"""
# Told by the page itself: when the tab is there, and when the frame with the first loaded thumbnail has been shown.
PAINTED = """
() => new Promise((resolve) => {
    const times = {};
    const look = () => {
        if (!times.page && document.getElementById("lora_trainer_pictures")) times.page = performance.now();
        const images = [...document.querySelectorAll("#lora_trainer_pictures .lora-trainer-gallery img")];
        if (!images.some((image) => image.complete && image.naturalWidth)) return requestAnimationFrame(look);
        requestAnimationFrame(() => setTimeout(() => resolve({...times, painted: performance.now()})));
    };
    look();
})
"""
# Clicks an element; resolves with the seconds until the first frame after anything of the page has changed, or null.
CLICKED = """
(element) => new Promise((resolve) => {
    const began = performance.now();
    const end = (value) => (watch.disconnect(), clearTimeout(late), resolve(value));
    const shown = () => requestAnimationFrame(() => setTimeout(() => end((performance.now() - began) / 1000)));
    const watch = new MutationObserver(shown);
    const late = setTimeout(() => end(null), 3000);
    watch.observe(document.body, {childList: true, subtree: true, attributes: true, characterData: true});
    element.click();
})
"""
OF_THE_BROWSER = "[disabled], .lora-trainer-drop *"  # these open its own window for files
IN_PANELS = f".lora-trainer-panel :is(button:not({OF_THE_BROWSER}), summary, .lora-trainer-gallery [role=option])"
FOLDS = "#lora_trainer_tabs .label-wrap"
STARTING = ("lora_trainer_start_training", "lora_trainer_prepare_start")  # last, as what they start takes the processor


def make_set(folder: Path, count: int) -> None:
    """Small JPEGs of different colours with captions; the server's index and thumbnails come from their first use."""
    pictures = folder / "datasets" / SET / f"10_{SET}"
    pictures.mkdir(parents=True)
    for number in range(count):
        colour = (number % 256, number // 256 * 5, 128)
        Image.new("RGB", (SIDE, SIDE), colour).save(pictures / f"{number:05}.jpg")
        caption = f"{SET}, solo, tag {number % 200}, standing"
        (pictures / f"{number:05}.txt").write_text(caption, encoding="utf-8")


def time_imports(gradio: str) -> dict[str, float]:
    """Medians; a first process, which compiles what was changed, is not counted."""
    words = [sys.executable, "-W", "ignore", "-c", IMPORT, str(ROOT / "scripts" / "lora_trainer_tab.py")]
    words += [str(FOLDERS[gradio].path), str(ROOT)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    runs = [
        json.loads(subprocess.run(words, capture_output=True, encoding="utf-8", check=True, env=environment).stdout)
        for _ in range(ROUNDS + 1)
    ][1:]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def time_paints(browser: Browser, server: Server) -> dict[str, float]:
    """Of the page as it is found again by a browser that knows which set was chosen."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(f"localStorage.setItem('lora_trainer_dataset', '{SET}')")
    page = context.new_page()
    visits = []
    for _ in range(ROUNDS + 1):
        page.goto(server.address, wait_until="commit")
        visits.append({name: time / 1000 for name, time in page.evaluate(PAINTED).items()})
    context.close()
    again = visits[1:]
    return {
        "first_paint_s": statistics.median(visit["painted"] for visit in again),
        "page_s": statistics.median(visit["page"] for visit in again),
        "first_visit_s": visits[0]["painted"],
    }


def time_clicks(browser: Browser, server: Server) -> dict[str, Any]:
    """Every thing that can be clicked, once; what a click has opened is closed by Escape."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_init_script(f"localStorage.setItem('lora_trainer_dataset', '{SET}')")
    tab = Tab(context.new_page(), server.address, server.folder)
    tab.open()
    tab.page.evaluate(PAINTED)
    times: dict[str, float | None] = {}
    for title in (*SUB_TABS[1:], SUB_TABS[0]):
        button = tab.page.locator("#lora_trainer_tabs > .tab-nav button", has_text=title)
        times[title] = button.evaluate(CLICKED)
        for found in (IN_PANELS, FOLDS):
            for element in tab.page.locator(found).element_handles():
                time_click(tab, element, title, times)
    for name in STARTING:
        time_click(tab, tab.page.locator(f"#{name}").element_handle(), SUB_TABS[0], times, starting=True)
    context.close()
    answered = {name: seconds for name, seconds in times.items() if seconds is not None}
    slowest = max(answered, key=lambda name: answered[name])
    silent = sorted(times.keys() - answered.keys())
    return {
        "slowest_click_s": answered[slowest],
        "slowest_click": slowest,
        "clicks": len(answered),
        "median_click_s": statistics.median(answered.values()),
        "nothing_seen": silent,
    }


def time_click(tab: Tab, element: Any, title: str, times: dict[str, float | None], starting: bool = False) -> None:
    """Notes the time of a click, None where nothing of the page has changed; the same sub-tab is there again then."""
    id, words = element.evaluate("each => [each.id, each.textContent.trim().slice(0, 40) || each.className]")
    if not element.is_visible() or (id in STARTING) > starting:
        return
    times[f"{title}: {id or words}"] = element.evaluate(CLICKED)
    tab.page.keyboard.press("Escape")
    if title not in tab.page.locator("#lora_trainer_tabs > .tab-nav button.selected").inner_text():
        tab.show(title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--gradio", choices=FOLDERS, nargs="+", default=list(FOLDERS))
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        make_set(Path(temporary), arguments.pictures)
        browser = launched(playwright)
        for gradio in arguments.gradio:
            install(FOLDERS[gradio])
            found[gradio] = time_imports(gradio)
            server = Server(gradio, Path(temporary))
            server.start()
            try:
                found[gradio] |= {**time_paints(browser, server), **time_clicks(browser, server)}
            finally:
                server.close()
            print(gradio, json.dumps(found[gradio], indent=1), flush=True)
        browser.close()
    worst = {
        name: max(each[name] for each in found.values())
        for name in ("import_s", "import_rss_mb", "first_paint_s", "slowest_click_s")
    }
    if arguments.json:
        write_text(arguments.json, json.dumps({**worst, "pictures": arguments.pictures, "gradio": found}, indent=1))


if __name__ == "__main__":
    main()
