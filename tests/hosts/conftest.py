"""What of a WebUI's `modules` the host asks for, in the shapes of A1111 v1.10.1, and of Forge f2.0.1 and its kin."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class QueueLock:
    """As the WebUI's: `with` calls its own `acquire`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        return self._lock.locked()


class Options:
    """As the WebUI's settings: what was saved is there before an option of that name is."""

    def __init__(self, **data: Any) -> None:
        self.data = data
        self.data_labels: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return self.data[name]

    def add_option(self, name: str, info: Any) -> None:
        self.data_labels[name] = info
        self.data.setdefault(name, info.default)

    def onchange(self, name: str, act: Callable[[], None], call: bool = True) -> None:
        assert not call
        self.data_labels[name].onchange = act

    def set(self, name: str, value: Any) -> None:
        self.data[name] = value
        self.data_labels[name].onchange()


class OptionInfo:
    def __init__(self, default: Any, label: str, component_args: Any = None, section: Any = None) -> None:
        self.default, self.label, self.component_args, self.section = default, label, component_args, section


class A1111Models:
    """`model_data` as A1111 has it: who looks for a model loads it, once."""

    def __init__(self, done: list[str]) -> None:
        self.sd_model: str | None = "model"
        self.loaded_sd_models = ["model", "other"]
        self.was_loaded_at_least_once = True
        self.lock = threading.Lock()
        self.loads = True
        self._done = done

    def get_sd_model(self) -> str | None:
        if not self.was_loaded_at_least_once:
            with self.lock:
                self._done.append("load")
                self.sd_model = "model" if self.loads else None
                self.was_loaded_at_least_once = self.loads
        return self.sd_model


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A1111's modules; what they are asked to do is noted in `done`."""
    done: list[str] = []
    info = SimpleNamespace(name="anime/base.safetensors", filename=str(tmp_path / "base.safetensors"))
    quantised = SimpleNamespace(name="flux.gguf", filename=str(tmp_path / "flux.gguf"))

    class Embeddings:
        def load_textual_inversion_embeddings(self, force_reload: bool = False) -> None:
            done.append(f"embeddings {force_reload}")

    parts: dict[str, dict[str, Any]] = {
        "paths": {"models_path": str(tmp_path / "models"), "script_path": str(tmp_path)},
        "shared": {
            "cmd_opts": SimpleNamespace(lora_dir=None, api_auth=None, listen=False, share=False, ngrok=None, api=True),
            "opts": Options(sd_model_checkpoint="anime/base.safetensors [0123456789]"),
            "OptionInfo": OptionInfo,
        },
        "sd_models": {
            "checkpoints_list": {"anime/base.safetensors [0123456789]": info, "flux.gguf": quantised},
            "checkpoint_aliases": {"anime/base.safetensors [0123456789]": info},
            "model_data": A1111Models(done),
            "send_model_to_trash": lambda model: done.append(f"trash {model}"),
            "list_models": lambda: done.append("list models"),
        },
        "sd_vae": {"delete_base_vae": lambda: done.append("delete base vae")},
        "sd_hijack": {
            "model_hijack": SimpleNamespace(
                undo_hijack=lambda model: done.append(f"undo {model}"), embedding_db=Embeddings()
            )
        },
        "devices": {"torch_gc": lambda: done.append("torch_gc")},
        "call_queue": {"queue_lock": QueueLock()},
        "ui": {"wrap_queued_call": None},
        "script_callbacks": {
            name: lambda act, name=name: done.append(f"{name} {act.__name__}")
            for name in ("on_ui_settings", "on_before_ui", "on_ui_tabs", "on_app_started")
        },
        "api": {},
        "api.api": {"api_middleware": lambda app: done.append(f"middleware {app.middleware_stack}")},
    }
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, contents in parts.items():
        module = ModuleType(f"modules.{name}")
        vars(module).update(contents)
        within, _, last = f"modules.{name}".rpartition(".")
        setattr(sys.modules[within], last, module)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
    for name in ("modules_forge", "networks", "backend.memory_management", "ldm_patched.modules.model_management"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return SimpleNamespace(done=done, tmp=tmp_path, **{name: sys.modules[f"modules.{name}"] for name in parts})


def memory_manager(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Forge's, or under another name that of its kin."""
    manager: Any = ModuleType(name)
    manager.unload_all_models = lambda: modules.done.append("unload_all_models")
    monkeypatch.setitem(sys.modules, name, manager)


@pytest.fixture
def forge(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same as Forge has them."""
    memory_manager(modules, monkeypatch, "backend.memory_management")
    data = SimpleNamespace(sd_model="model", forge_hash="x")
    data.set_sd_model = lambda model: modules.done.append(f"set {model}")
    data.get_sd_model = lambda: data.sd_model
    modules.sd_models.model_data = data
    modules.sd_models.FakeInitialModel = lambda: "placeholder"
    return modules


@pytest.fixture
def kin(modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The same as reForge and Forge Classic have them: A1111's models, and a manager of memory."""
    memory_manager(modules, monkeypatch, "ldm_patched.modules.model_management")
    return modules
