"""Against `modules` of the shape that A1111 v1.10.1 and Forge f2.0.1 have."""

from __future__ import annotations

import importlib.machinery
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI

from lora_trainer.hosts import webui
from lora_trainer.hosts.webui import WebUI


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A WebUI's modules; what they are asked to do is noted in `done`."""
    done: list[str] = []
    info = SimpleNamespace(name="anime/base.safetensors", filename=str(tmp_path / "base.safetensors"))
    quantised = SimpleNamespace(name="flux.gguf", filename=str(tmp_path / "flux.gguf"))
    parts: dict[str, dict[str, Any]] = {
        "paths": {"models_path": str(tmp_path / "models")},
        "shared": {
            "cmd_opts": SimpleNamespace(lora_dir=None, api_auth=None, listen=False, share=False, ngrok=None),
            "opts": SimpleNamespace(sd_model_checkpoint="anime/base.safetensors [0123456789]"),
        },
        "sd_models": {
            "checkpoints_list": {"anime/base.safetensors [0123456789]": info, "flux.gguf": quantised},
            "checkpoint_aliases": {"anime/base.safetensors [0123456789]": info},
            "model_data": SimpleNamespace(sd_model="model", loaded_sd_models=["model", "other"], forge_hash="x"),
            "send_model_to_trash": lambda model: done.append(f"trash {model}"),
            "FakeInitialModel": lambda: "placeholder",
            "list_models": lambda: done.append("list models"),
        },
        "sd_hijack": {"model_hijack": SimpleNamespace(undo_hijack=lambda model: done.append(f"undo {model}"))},
        "devices": {"torch_gc": lambda: done.append("torch_gc")},
        "call_queue": {"queue_lock": threading.Lock()},
        "script_callbacks": {
            "on_ui_tabs": lambda act: done.append(f"tabs {act.__name__}"),
            "on_app_started": lambda act: done.append(f"app {act.__name__}"),
        },
    }
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, contents in parts.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(contents)
        setattr(package, name, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    return SimpleNamespace(done=done, tmp=tmp_path, **{name: sys.modules[f"modules.{name}"] for name in parts})


def test_folders_and_checkpoints_are_the_webuis(modules: SimpleNamespace) -> None:
    host = WebUI()
    assert host.lora_folders() == [modules.tmp / "models" / "Lora"]
    modules.shared.cmd_opts.lora_dir = str(modules.tmp / "elsewhere")
    assert host.lora_folders() == [modules.tmp / "elsewhere"]
    assert host.checkpoints() == [("anime/base.safetensors", modules.tmp / "base.safetensors")]
    assert host.current_checkpoint() == "anime/base.safetensors"
    modules.shared.opts.sd_model_checkpoint = None
    assert host.current_checkpoint() == ""
    host.refresh_checkpoints()
    assert modules.done == ["list models"]


def test_a1111_lets_go_of_every_model_once_no_picture_is_being_made(modules: SimpleNamespace) -> None:
    modules.call_queue.queue_lock.acquire()
    freeing = threading.Thread(target=WebUI().free_gpu)
    freeing.start()
    assert modules.done == []
    modules.call_queue.queue_lock.release()
    freeing.join()
    assert modules.done == ["undo model", "trash model", "trash other", "torch_gc"]
    assert modules.sd_models.model_data.sd_model is None and modules.sd_models.model_data.loaded_sd_models == []
    WebUI().free_gpu()
    assert modules.done[4:] == ["torch_gc"]


def test_forge_lets_go_of_its_model(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("modules_forge", "backend", "backend.memory_management"):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    memory: Any = sys.modules["backend.memory_management"]
    memory.unload_all_models = lambda: modules.done.append("unload_all_models")
    vars(sys.modules["backend"])["memory_management"] = memory
    modules.sd_models.model_data.set_sd_model = lambda model: modules.done.append(f"set {model}")
    WebUI().free_gpu()
    assert modules.done == ["unload_all_models", "set placeholder", "torch_gc"]
    assert modules.sd_models.model_data.forge_hash == ""


def test_the_list_of_loras_is_read_again_and_forges_cache_forgotten(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    WebUI().refresh_loras()
    networks: Any = ModuleType("networks")
    networks.list_available_networks = lambda: modules.done.append("listed")
    networks.load_lora_state_dict = SimpleNamespace(cache_clear=lambda: modules.done.append("forgotten"))
    monkeypatch.setitem(sys.modules, "networks", networks)
    WebUI().refresh_loras()
    assert modules.done == ["listed", "forgotten"]


def test_the_entry_file_registers_the_tab_and_the_routes(modules: SimpleNamespace) -> None:
    webui.register()
    assert modules.done == ["tabs tabs", "app start"]


def test_a_reload_of_the_page_keeps_the_queue_and_replaces_the_routes(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webui, "ROOT", modules.tmp)
    monkeypatch.setattr(webui, "_running", {})
    app = FastAPI()
    try:
        webui.start(None, app)
        first = dict(webui._running)
        routes = len(app.router.routes)
        webui.start(None, app)
        assert webui._running == first and len(app.router.routes) == routes
    finally:
        webui._running["supervisor"].close()
        webui._running["queue"].close()


def test_users_and_openness_are_those_of_the_command_line(modules: SimpleNamespace) -> None:
    options = modules.shared.cmd_opts
    options.api_auth, options.listen = "me:secret,you:a:b", True
    access = webui._access(FastAPI())
    assert access.users == {"me": "secret", "you": "a:b"} and access.listening_remotely
    assert not access.allowed_remotely
    options.api_auth, options.listen = None, False
    assert webui._access(FastAPI()).users is None
