"""Against `modules` of the shape that A1111 v1.10.1 and Forge f2.0.1 have: see conftest.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer import installing
from lora_trainer.hosts import webui
from lora_trainer.hosts.webui import WebUI, early, gpu
from lora_trainer.jobs.folder import JobFolder
from lora_trainer.locks import Lock
from tests.api.conftest import Client


def test_folders_and_checkpoints_are_the_webuis(modules: SimpleNamespace) -> None:
    host = WebUI()
    assert host.lora_folders() == [modules.tmp / "models" / "Lora"]
    modules.shared.cmd_opts.lora_dir = str(modules.tmp / "elsewhere")
    assert host.lora_folders() == [modules.tmp / "elsewhere"]
    assert host.checkpoints() == [
        ("anime/base.safetensors", modules.tmp / "base.safetensors"),
        ("flux.gguf", modules.tmp / "flux.gguf"),
    ]
    assert host.current_checkpoint() == "anime/base.safetensors"
    modules.shared.opts.data["sd_model_checkpoint"] = None
    assert host.current_checkpoint() == ""
    host.refresh_checkpoints()
    assert modules.done == ["list models"]


def test_parts_of_a_flux_model_lie_where_forge_has_them(modules: SimpleNamespace) -> None:
    models = modules.tmp / "models"
    tokenizers = modules.tmp / "backend" / "huggingface" / "black-forest-labs"
    assert WebUI().part_folders() == [models / "text_encoder", models / "VAE", models / "CLIP", tokenizers]
    modules.shared.cmd_opts.vae_dir = str(modules.tmp / "vaes")
    modules.shared.cmd_opts.text_encoder_dir = str(modules.tmp / "t5")
    assert WebUI().part_folders()[3:5] == [modules.tmp / "t5", modules.tmp / "vaes"]


def test_the_list_of_loras_is_read_again(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    WebUI().refresh_loras()  # where the WebUI's own extension for them is off
    monkeypatch.setitem(sys.modules, "networks", ModuleType("networks"))
    WebUI().refresh_loras()  # where another package is called so
    networks: Any = ModuleType("networks")
    networks.list_available_networks = lambda: modules.done.append("listed")
    monkeypatch.setitem(sys.modules, "networks", networks)
    WebUI().refresh_loras()
    assert modules.done == ["listed"]


def test_forge_forgets_what_it_keeps_of_loras(forge: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    networks: Any = ModuleType("networks")
    networks.list_available_networks = lambda: forge.done.append("listed")
    networks.load_lora_state_dict = SimpleNamespace(cache_clear=lambda: forge.done.append("forgotten"))
    monkeypatch.setitem(sys.modules, "networks", networks)
    loaders = [SimpleNamespace(loaded_hash="[zdm]") for _ in range(2)]
    clip = SimpleNamespace(patcher=SimpleNamespace(lora_loader=loaders[1]))
    parts = SimpleNamespace(unet=SimpleNamespace(lora_loader=loaders[0]), clip=clip)
    model = SimpleNamespace(current_lora_hash="[zdm]", forge_objects_original=parts)
    forge.sd_models.model_data.sd_model = model
    WebUI().refresh_loras()
    assert forge.done == ["listed", "forgotten"]
    assert model.current_lora_hash == loaders[0].loaded_hash == loaders[1].loaded_hash == ""


def test_a1111_puts_loras_into_its_model_anew(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a layer alone that has LoRAs of the wanted names and weights in it, whatever their files hold since."""
    networks: Any = ModuleType("networks")
    networks.list_available_networks = lambda: None
    monkeypatch.setitem(sys.modules, "networks", networks)
    wanted = (("zdm", 1.0, 1.0, None),)
    changed, plain = SimpleNamespace(network_current_names=wanted), SimpleNamespace(network_current_names=())
    modules.sd_models.model_data.sd_model = SimpleNamespace(modules=lambda: iter((changed, plain, object())))
    WebUI().refresh_loras()
    assert changed.network_current_names not in (wanted, ()) and plain.network_current_names == ()
    modules.sd_models.model_data.sd_model = None  # as while a training has the GPU
    WebUI().refresh_loras()


@pytest.fixture
def started(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """With folders of its own and the training packages not looked for."""
    monkeypatch.setattr(webui, "JOBS", tmp_path / "jobs")
    monkeypatch.setattr(webui, "DATASETS", tmp_path / "datasets")
    monkeypatch.setattr(installing.Installation, "look", lambda self: modules.done.append("look"))
    webui.running.cache_clear()
    webui.options.add()
    yield modules
    running = webui.running()
    running.queue.close()
    webui.running.cache_clear()


def test_the_entry_file_registers_the_tab_the_settings_and_the_routes(started: SimpleNamespace) -> None:
    webui.register()
    assert started.done == ["on_ui_settings add", "on_before_ui prepare", "on_ui_tabs tabs", "on_app_started start"]
    assert started.sd_models.model_data.was_loaded_at_least_once


def test_a_training_that_runs_keeps_the_model_from_being_loaded(started: SimpleNamespace) -> None:
    data = started.sd_models.model_data
    data.sd_model, data.was_loaded_at_least_once = None, False
    folder = JobFolder(webui.JOBS / "7")
    folder.path.mkdir(parents=True)
    webui.register()
    assert not data.was_loaded_at_least_once
    with Lock(folder.lock):
        webui.register()
    assert data.was_loaded_at_least_once
    gpu._had_a_model.clear()


def test_a_reload_of_the_page_keeps_the_queue_and_replaces_the_routes(started: SimpleNamespace) -> None:
    app = FastAPI()
    webui.start(None, app)
    first, routes = webui.running(), len(app.router.routes)
    webui.start(None, app)
    assert webui.running() is first and len(app.router.routes) == routes
    assert started.done == ["look"]
    assert started.call_queue.queue_lock.supervisor is first.supervisor


def test_settings_count_at_once(started: SimpleNamespace, tmp_path: Path) -> None:
    app = FastAPI()
    started.shared.cmd_opts.listen = True
    webui.start(None, app)
    ask = Client(app)
    assert ask("GET", "/lora-trainer/v1/datasets").status_code == 403
    started.shared.opts.set("lora_trainer_open_to_all", True)
    assert ask("GET", "/lora-trainer/v1/datasets").json()["datasets"] == []
    (tmp_path / "mine" / "zdm").mkdir(parents=True)
    started.shared.opts.set("lora_trainer_datasets", str(tmp_path / "mine"))
    assert "zdm" in ask("GET", "/lora-trainer/v1/datasets").text


def test_a_folder_for_jobs_that_cannot_be(
    started: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    started.shared.opts.data["lora_trainer_jobs"] = str(tmp_path / "file" / "jobs")
    assert webui.running().queue.folder == tmp_path / "jobs"
    assert "Choose another folder for the jobs" in capsys.readouterr().out


def test_the_jobs_lie_where_the_settings_say(started: SimpleNamespace, tmp_path: Path) -> None:
    started.shared.opts.data["lora_trainer_jobs"] = str(tmp_path / "elsewhere")
    assert webui.running().queue.folder == tmp_path / "elsewhere"


@pytest.mark.parametrize(("flag", "told"), [(True, "middleware None"), (False, "middleware built")])
def test_an_early_request_does_not_end_the_webuis_start(modules: SimpleNamespace, flag: bool, told: str) -> None:
    """With --api; its page can be open from before."""
    modules.shared.cmd_opts.api = flag
    early.bear_early_requests.cache_clear()
    early.bear_early_requests()
    early.bear_early_requests()
    sys.modules["modules.api.api"].api_middleware(SimpleNamespace(middleware_stack="built"))
    assert modules.done == [told]
