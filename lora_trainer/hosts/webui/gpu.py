"""What the WebUI itself has on the GPU: let go of for a training, and taken back after it.

There are two kinds of it. Forge loads its model when a picture is asked for. A1111 loads it at its start, and whenever
anything looks at `shared.sd_model` before; reForge and Forge Classic do so, too, with a memory manager of their own.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from typing import Any

from lora_trainer.hosts.host import HostProblem
from lora_trainer.hosts.webui import lock

MANAGERS = ("backend.memory_management", "ldm_patched.modules.model_management")  # Forge's; those of its kin

_had_a_model = threading.Event()  # set from when the WebUI lets go of its model until it has one again


def free() -> None:
    """Waits for the picture that is being made, and for a model that is being loaded; then lets go of every model."""
    from modules import devices, sd_models

    with lock.plainly():
        if manager := _manager():
            manager.unload_all_models()
        data = sd_models.model_data
        if _loads_at_a_look(data):
            with data.lock:
                _let_go(data)
        else:
            data.set_sd_model(sd_models.FakeInitialModel())
            data.forge_hash = ""
        gc.collect()
        devices.torch_gc()
        _give_memory_to_the_system()


def take_back() -> None:
    """Loads the model again where one was let go of, as much of the WebUI wants one. Raises HostProblem."""
    from modules import sd_models

    if not _had_a_model.is_set():
        return
    data = sd_models.model_data
    with lock.plainly():
        if data.sd_model is None:
            data.was_loaded_at_least_once = False
            data.get_sd_model()  # tells on the console what keeps it from loading
        if data.sd_model is None:
            raise HostProblem("The WebUI could not load its model again. Its console says why: choose a checkpoint.")
        _had_a_model.clear()


def start_without_model() -> None:
    """Keeps a WebUI that starts while a training has the GPU from loading its model. The next picture loads it."""
    from modules import sd_models, shared

    data = sd_models.model_data
    if _loads_at_a_look(data) and not data.was_loaded_at_least_once:
        data.was_loaded_at_least_once = True
        if not getattr(shared.cmd_opts, "skip_load_model_at_start", False):
            _had_a_model.set()


def spare_embeddings() -> None:
    """Has the cards of the WebUI be refreshed without a model, too, where its embeddings would raise.

    Which of them fit a model is found out when one is loaded.
    """
    from modules import sd_hijack, sd_models

    data = sd_models.model_data
    database = getattr(sd_hijack.model_hijack, "embedding_db", None)
    if database is None or not _loads_at_a_look(data):
        return

    def load(*words: Any, **named: Any) -> None:
        if data.sd_model is not None or not data.was_loaded_at_least_once:
            type(database).load_textual_inversion_embeddings(database, *words, **named)

    database.load_textual_inversion_embeddings = load


def _let_go(data: Any) -> None:
    """`unload_model_weights` would only move the weights to main memory."""
    from modules import sd_hijack, sd_models, sd_vae

    data.was_loaded_at_least_once = True  # no look at it loads it
    if data.sd_model is not None:
        _had_a_model.set()
        if not _manager():
            sd_hijack.model_hijack.undo_hijack(data.sd_model)
    data.sd_model = None
    for model in data.loaded_sd_models:
        sd_models.send_model_to_trash(model)
    data.loaded_sd_models.clear()
    sd_vae.delete_base_vae()


def _give_memory_to_the_system() -> None:
    """What models leave behind in main memory: on Linux the C library would keep gigabytes of it for later."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def _manager() -> Any:
    """The module that knows what lies on the GPU, where the WebUI has one."""
    return next((sys.modules[name] for name in MANAGERS if name in sys.modules), None)


def _loads_at_a_look(data: Any) -> bool:
    return hasattr(data, "was_loaded_at_least_once")
