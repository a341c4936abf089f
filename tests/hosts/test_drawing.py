"""Pictures by the WebUI, against `modules` that draw what they are asked for: in the shapes of A1111 and of Forge."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from lora_trainer.hosts.host import Drawing, HostProblem
from lora_trainer.hosts.webui import WebUI, drawing

BASE, OTHER = "anime/base.safetensors", "other.safetensors"
TAG = re.compile(r"<lora:([^:>]+):([^>]+)>")
ASKED = Drawing(BASE, "zdm, red", "blurred", 12, 6.5, "DPM++ 2M Karras", 64, 96, 42, clip_skip=2)


class Host:
    """What is left of a WebUI: options, a queue, LoRAs by name, and pictures whose colour is what was drawn with."""

    def __init__(self, forge: bool, folder: Path) -> None:
        self.forge, self.folder = forge, folder
        self.lock = threading.Lock()
        self.options: dict[str, Any] = {"sd_model_checkpoint": OTHER, "CLIP_stop_at_last_layers": 1}
        self.model = SimpleNamespace(sd_checkpoint_info=SimpleNamespace(name=OTHER))
        self.flags = SimpleNamespace(no_prompt_history=False)
        self.state = SimpleNamespace(
            begin=self.begin, end=lambda: None, interrupt=self.interrupt, interrupted=False, skipped=False, job=""
        )
        self.made: list[dict[str, Any]] = []
        self.faulty: list[str] = []  # LoRAs that could not be applied to a layer that they are for
        self.fails: Exception | None = None
        self.read: dict[str, bytes] = {}  # Forge's LoRAs by their files' names
        self.applied = 0.0
        self.seen: list[str] = []  # threads that drew
        self.networks: Any = ModuleType("networks")
        vars(self.networks).update(
            available_networks={},
            available_network_aliases={},
            loaded_networks=[],
            networks_in_memory={},
            list_available_networks=lambda: None,
        )
        if forge:
            vars(self.networks)["load_lora_state_dict"] = SimpleNamespace(cache_clear=self.read.clear)
            self.model.current_lora_hash = str([])
            self.model.forge_objects_original = SimpleNamespace(unet=object(), clip=object())

    def begin(self, job: str) -> None:
        assert self.lock.locked()
        self.state.job, self.state.interrupted = job, False

    def interrupt(self) -> None:
        self.state.interrupted = True

    def process(self, asked: Any) -> Any:
        self.seen.append(threading.current_thread().name)
        kept = {**self.options}
        self.options.update(asked.override_settings)
        try:
            self.model.sd_checkpoint_info = SimpleNamespace(name=self.options["sd_model_checkpoint"])
            if self.fails:
                raise self.fails
            strength = self.load(TAG.findall(asked.prompt))
            asked.all_seeds = asked.all_subseeds = [asked.seed]
            asked.comments = {f"Networks with errors: {name} (3)": 1 for name in self.faulty}
            told = {"options": {**self.options}, "asked": asked, "history": not self.flags.no_prompt_history}
            self.made.append(told)
            size = (asked.width, asked.height)
            return SimpleNamespace(images=[Image.new("RGB", size, (int(100 * strength), 0, 0))])
        finally:
            self.options = kept

    def load(self, tags: list[tuple[str, str]]) -> float:
        """The strength of the LoRAs of a prompt; one that is not known is passed over, as both WebUIs do.

        Forge keeps files by their names, and does nothing where the model has these very ones already.
        """
        found = [(self.networks.available_network_aliases.get(name), float(weight)) for name, weight in tags]
        known = [(entry, weight) for entry, weight in found if entry]
        self.networks.loaded_networks[:] = [self.loaded(entry) for entry, _ in known]
        if not self.forge:
            return sum(weight for entry, weight in known if Path(entry.filename).read_bytes() == b"fits")
        targets = str([[entry.filename, weight] for entry, weight in known])
        if self.model.current_lora_hash != targets:
            self.model.current_lora_hash = targets
            contents = [self.read.setdefault(entry.filename, Path(entry.filename).read_bytes()) for entry, _ in known]
            self.applied = sum(weight for (_, weight), content in zip(known, contents) if content == b"fits")
            plain = self.model.forge_objects_original
            self.model.forge_objects_after_applying_lora = SimpleNamespace(unet=object()) if self.applied else plain
            self.model.forge_objects_after_applying_lora.clip = plain.clip
        return self.applied

    def loaded(self, entry: Any) -> Any:
        entry.read_hash()
        self.networks.networks_in_memory[entry.name] = entry
        fits = Path(entry.filename).read_bytes() == b"fits"
        return SimpleNamespace(name=entry.name, modules={"layer": 1} if fits and not self.forge else {})


class Processing:
    """The arguments that both WebUIs' classes take, of those that are used."""

    def __init__(self, *, prompt: str, negative_prompt: str, steps: int, cfg_scale: float, width: int, height: int,
                 seed: int, sampler_name: str, scheduler: str, do_not_save_samples: bool, do_not_save_grid: bool,
                 override_settings: dict[str, Any], **of_forge: float) -> None:  # fmt: skip
        assert all(hasattr(self, name) for name in of_forge)
        vars(self).update(locals())
        self.all_seeds = self.all_subseeds = [-1]
        self.comments: dict[str, int] = {}

    def close(self) -> None:
        self.closed = True


def save(image: Image.Image, words: str, file: str, extension: str) -> None:
    assert extension == ".png"
    said = PngImagePlugin.PngInfo()
    said.add_text("parameters", words)
    image.save(file, format="PNG", pnginfo=said)


def split(name: str, schedule: str | None) -> tuple[str, str]:
    """As the WebUI has it: what it does not know becomes the first sampler."""
    sampler, karras, _ = name.partition(" Karras")
    return sampler if sampler in ("Euler a", "DPM++ 2M") else "DPM++ 2M", "Karras" if karras else "Automatic"


class ForgeProcessing(Processing):
    distilled_cfg_scale = 3.5


class MainThread(ModuleType):
    """Forge's: does what it is given in a thread of its own, and keeps what goes wrong to itself."""

    def run_and_wait_result(self, act: Any) -> None:
        def run() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001  as Forge does
                self.printed = error

        thread = threading.Thread(target=run, name="main of Forge")
        thread.start()
        thread.join()


@pytest.fixture(params=[False, True], ids=["a1111", "forge"])
def webui(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Host]:
    host = Host(request.param, tmp_path)
    info = SimpleNamespace(sd_model_checkpoint=BASE)
    parts: dict[str, dict[str, Any]] = {
        "call_queue": {"queue_lock": host.lock},
        "images": {"save_image_with_geninfo": save},
        "processing": {
            "StableDiffusionProcessingTxt2Img": ForgeProcessing if request.param else Processing,
            "process_images": host.process,
            "create_infotext": lambda asked, prompts, seeds, subseeds: f"{prompts[0]}\nSteps: {asked.steps}",
        },
        "sd_models": {
            "checkpoint_aliases": {BASE: info, OTHER: info},
            "model_data": SimpleNamespace(sd_model=host.model),
        },
        "sd_samplers": {"get_sampler_and_scheduler": split, "all_samplers_map": {"Euler a": 1, "DPM++ 2M": 1}},
        "shared": {
            "cmd_opts": host.flags,
            "state": host.state,
            "sd_model": host.model,
            "total_tqdm": SimpleNamespace(clear=lambda: None),
        },
    }
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    monkeypatch.setitem(sys.modules, "networks", host.networks)
    for name, contents in parts.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(contents)
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    if host.forge:
        monkeypatch.setitem(sys.modules, "modules_forge.main_thread", MainThread("main_thread"))
    else:
        monkeypatch.delitem(sys.modules, "modules_forge.main_thread", raising=False)
    monkeypatch.setattr(drawing, "_changed", {})
    yield host
    assert not host.lock.locked() and not host.flags.no_prompt_history
    assert host.networks.available_network_aliases == {} and host.networks.networks_in_memory == {}


@pytest.fixture
def lora(webui: Host) -> Path:
    file = webui.folder / "job" / "zdm-000002.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"fits")
    return file


def red(picture: Path) -> int:
    with Image.open(picture) as image:
        pixel = image.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0])


def test_a_picture_is_made_as_asked_and_nothing_of_it_stays(webui: Host) -> None:
    target = webui.folder / "grid" / "00.png"
    assert WebUI().draws
    WebUI().draw(ASKED, target)
    (made,) = webui.made
    said = ("prompt", "negative_prompt", "steps", "cfg_scale", "width", "height", "seed", "sampler_name", "scheduler")
    asked = [getattr(made["asked"], name) for name in said]
    assert asked == ["zdm, red", "blurred", 12, 6.5, 64, 96, 42, "DPM++ 2M", "Karras"]
    assert made["asked"].do_not_save_samples and made["asked"].do_not_save_grid and made["asked"].closed
    assert made["options"] == {"sd_model_checkpoint": BASE, "CLIP_stop_at_last_layers": 2} and not made["history"]
    assert webui.options == {"sd_model_checkpoint": OTHER, "CLIP_stop_at_last_layers": 1}
    assert [path.name for path in target.parent.iterdir()] == ["00.png"]
    with Image.open(target) as image:
        assert (image.format, image.size) == ("PNG", (64, 96))
    assert (webui.seen == ["main of Forge"]) == webui.forge


def test_clip_skip_stays_the_users_where_none_is_said(webui: Host) -> None:
    WebUI().draw(replace(ASKED, clip_skip=None), webui.folder / "00.png")
    assert webui.made[0]["asked"].override_settings == {"sd_model_checkpoint": BASE}


def test_a_flux_is_drawn_with_its_guidance(webui: Host) -> None:
    of_flux = replace(ASKED, guidance=2.5, cfg_scale=1.0)
    if not webui.forge:
        assert "no pictures with a Flux" in refused(of_flux, webui.folder)
        return
    WebUI().draw(of_flux, webui.folder / "00.png")
    assert webui.made[0]["asked"].of_forge == {"distilled_cfg_scale": 2.5}
    WebUI().draw(ASKED, webui.folder / "01.png")
    assert webui.made[1]["asked"].of_forge == {}


def test_a_lora_of_any_folder_is_drawn_with_and_told_by_its_own_name(webui: Host, lora: Path) -> None:
    target = webui.folder / "00.png"
    WebUI().draw(replace(ASKED, loras=((lora, 0.7),)), target)
    assert red(target) == 70 and webui.networks.available_networks == {}
    with Image.open(target) as image:
        assert image.info["parameters"] == "zdm, red <lora:zdm-000002:0.7>\nSteps: 12"


def test_a_file_that_has_changed_is_read_again(webui: Host, lora: Path) -> None:
    with_lora, target = replace(ASKED, loras=((lora, 1.0),)), webui.folder / "00.png"
    for _ in range(2):
        WebUI().draw(with_lora, target)
    first, second = (TAG.findall(made["asked"].prompt) for made in webui.made)
    assert first == second
    lora.write_bytes(b"other")
    os.utime(lora, ns=(1, 1))
    with pytest.raises(HostProblem, match="does not fit"):
        WebUI().draw(with_lora, target)
    lora.write_bytes(b"fits")
    WebUI().draw(with_lora, target)
    assert red(target) == 100 and TAG.findall(webui.made[-1]["asked"].prompt) != first


def test_a_picture_without_loras_has_none_even_where_their_files_have_changed(webui: Host, lora: Path) -> None:
    target = webui.folder / "00.png"
    WebUI().draw(replace(ASKED, loras=((lora, 1.0),)), target)
    WebUI().refresh_loras()
    WebUI().draw(ASKED, target)
    assert red(target) == 0


def refused(asked: Drawing, folder: Path) -> str:
    target = folder / "00.png"
    with pytest.raises(HostProblem) as problem:
        WebUI().draw(asked, target)
    assert not target.exists()
    return str(problem.value)


def test_what_the_webui_would_pass_over_is_told(webui: Host, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_lora = replace(ASKED, loras=((lora, 0.8),))
    lora.write_bytes(b"other")
    assert "does not fit anime/base.safetensors" in refused(with_lora, webui.folder)
    monkeypatch.setattr(webui, "load", lambda tags: webui.networks.loaded_networks.clear() or 0.0)
    assert "did not find the LoRA zdm-000002" in refused(with_lora, webui.folder)
    lora.unlink()
    assert "zdm-000002.safetensors is not there" in refused(with_lora, webui.folder)


def test_a_list_of_loras_that_is_read_meanwhile_spoils_no_picture(
    webui: Host, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(tags: list[tuple[str, str]]) -> float:
        if len(webui.seen) == 1:
            webui.networks.available_network_aliases.clear()
        return Host.load(webui, tags)

    monkeypatch.setattr(webui, "load", load)
    WebUI().draw(replace(ASKED, loras=((lora, 0.7),)), webui.folder / "00.png")
    assert (red(webui.folder / "00.png"), len(webui.seen)) == (70, 2)


def test_a_lora_of_which_a_layer_could_not_be_used_is_told(
    webui: Host, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(tags: list[tuple[str, str]]) -> float:
        webui.faulty += [name for name, _ in tags]
        return Host.load(webui, tags)

    monkeypatch.setattr(webui, "load", load)
    assert "does not fit anime/base.safetensors" in refused(replace(ASKED, loras=((lora, 0.8),)), webui.folder)


def test_a_webui_without_its_extension_for_loras_draws_the_base_alone(
    webui: Host, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "networks")
    assert "extension for LoRAs is off" in refused(replace(ASKED, loras=((lora, 0.8),)), webui.folder)
    WebUI().draw(ASKED, webui.folder / "00.png")
    assert len(webui.made) == 1


@pytest.mark.parametrize(
    "changes, told", [({"checkpoint": "gone.ckpt"}, "no base model gone.ckpt"), ({"sampler": "LCM"}, "no sampler LCM")]
)
def test_what_the_webui_has_not_is_told(webui: Host, changes: dict[str, Any], told: str) -> None:
    assert told in refused(replace(ASKED, **changes), webui.folder)
    assert webui.made == []


def test_a_base_that_it_did_not_change_to_is_told(webui: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(asked: Any) -> Any:
        asked.override_settings = {}  # as with --freeze-settings
        return webui.process(asked)

    monkeypatch.setattr(sys.modules["modules.processing"], "process_images", process)
    assert "did not change to the base model" in refused(ASKED, webui.folder)


FAULTS = RuntimeError("CUDA out of memory.\nmore"), AssertionError(), Exception("no SDXL"), FileNotFoundError("no such")


@pytest.mark.parametrize("error", FAULTS)
def test_whatever_goes_wrong_in_the_webui_is_one_sentence(webui: Host, error: Exception) -> None:
    webui.fails = error
    told = refused(ASKED, webui.folder)
    said = str(error).partition(".")[0] or "AssertionError"
    assert told.startswith(f"The WebUI could not make the picture ({said}).") and "\n" not in told


def test_an_interrupted_picture_is_not_kept(webui: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    WebUI().stop_drawing()
    assert not webui.state.interrupted  # nothing of ours is being drawn

    def process(asked: Any) -> Any:
        WebUI().stop_drawing()
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))])

    monkeypatch.setattr(sys.modules["modules.processing"], "process_images", process)
    assert "interrupted" in refused(ASKED, webui.folder)


def test_a_disk_that_refuses_is_told_as_such(webui: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["modules.images"], "save_image_with_geninfo", full)
    with pytest.raises(OSError, match="No space"):
        WebUI().draw(ASKED, webui.folder / "00.png")
