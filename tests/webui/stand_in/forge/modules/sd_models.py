"""Forge's checkpoints: nothing is loaded before the first picture; until then `shared.sd_model` is a placeholder."""

from __future__ import annotations

from types import SimpleNamespace

from backend import memory_management
from modules import devices, script_callbacks, shared
from modules.sd_checkpoints import MODEL_BYTES, checkpoint_aliases, checkpoints_list, find_checkpoints, model_path


class FakeInitialModel:
    def __init__(self):
        self.cond_stage_model, self.chunk_length = None, 75


class Model:
    def __init__(self, info):
        self.sd_checkpoint_info, self.filename = info, info.filename
        self.weights, self.current_lora_hash = bytearray(b"\1") * MODEL_BYTES, str([])
        self.wanted, self.merged = [], []
        unet = SimpleNamespace(lora_loader=SimpleNamespace(loaded_hash=str([])))
        self.forge_objects_original = SimpleNamespace(unet=unet, clip=object())
        self.forge_objects_after_applying_lora = self.forge_objects_original
        memory_management.current_loaded_models.append(self)

    @property
    def patches(self):
        loader = self.forge_objects_original.unet.lora_loader
        if loader.loaded_hash != self.current_lora_hash:
            loader.loaded_hash, self.merged = self.current_lora_hash, self.wanted
        return self.merged


class SdModelData:
    def __init__(self):
        self.sd_model, self.forge_loading_parameters, self.forge_hash = FakeInitialModel(), {}, ""

    def get_sd_model(self):
        return self.sd_model

    def set_sd_model(self, model):
        self.sd_model = model


model_data = SdModelData()


def list_models():
    find_checkpoints(".ckpt", ".safetensors", ".gguf")
    if not shared.opts.sd_model_checkpoint and checkpoints_list:
        shared.opts.sd_model_checkpoint = next(iter(checkpoints_list.values())).name


def checkpoint_tiles(use_short=False):
    return [info.name for info in checkpoints_list.values()]


def match_checkpoint_to_name(name):
    name = name.split(" [")[0]
    return next((info.name for info in checkpoints_list.values() if name in info.title or info.name in name), name)


def select_checkpoint():
    found = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    return found or next(iter(checkpoints_list.values()), None)


def forge_model_reload():
    wanted = str(model_data.forge_loading_parameters)
    if model_data.forge_hash == wanted:
        return model_data.sd_model, False
    info = model_data.forge_loading_parameters["checkpoint_info"]
    if info is None:
        raise ValueError("You do not have any model! Please download at least one model in [models/Stable-diffusion].")
    model_data.sd_model = None
    memory_management.unload_all_models()
    info.calculate_shorthash()
    model_data.set_sd_model(Model(info))
    script_callbacks.model_loaded_callback(model_data.sd_model)
    model_data.forge_hash = wanted
    print(f"Model loaded: {info.title}", flush=True)
    return model_data.sd_model, True


def model_for_picture(p):
    if not model_data.forge_loading_parameters or p.override_settings.get("sd_model_checkpoint"):
        refresh_model_loading_parameters()
    p.sd_model, _ = forge_model_reload()
    if p.sd_model not in memory_management.current_loaded_models:  # moved off by somebody
        memory_management.current_loaded_models.append(p.sd_model)


def refresh_model_loading_parameters():
    model_data.forge_loading_parameters = {"checkpoint_info": select_checkpoint(), "additional_modules": []}


def choose_checkpoint(name):
    """Nothing is loaded; the next picture does it."""
    shared.opts.set("sd_model_checkpoint", match_checkpoint_to_name(name))
    shared.opts.save(shared.config_filename)
    refresh_model_loading_parameters()
    return shared.opts.sd_model_checkpoint, shared.opts.dumpjson()


def check_for_cards():
    """Forge makes its cards without a model."""


def unload_model_weights(sd_model=None, info=None):
    memory_management.unload_all_models()


def load_model(checkpoint_info=None, already_loaded_state_dict=None):
    """An empty stub there."""


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    """An empty stub there."""


def send_model_to_cpu(model):
    """An empty stub there."""


def send_model_to_device(model):
    """An empty stub there."""


def send_model_to_trash(model):
    """An empty stub there."""


def model_target_device(model):
    return devices.device


__all__ = ["model_path"]
