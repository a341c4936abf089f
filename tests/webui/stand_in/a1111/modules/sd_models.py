"""A1111's checkpoints, and the model that is loaded.

As seen in the real one: a model is loaded at the start, in a thread; `unload_model_weights` only moves it to main
memory; once it is let go of, `shared.sd_model` stays None until the next picture is asked for.
"""

from __future__ import annotations

import threading

from modules import devices, script_callbacks, shared
from modules.sd_checkpoints import MODEL_BYTES, checkpoint_aliases, checkpoints_list, find_checkpoints, model_path


class Model:
    def __init__(self, info):
        self.sd_checkpoint_info, self.sd_model_checkpoint = info, info.filename
        self.device, self.weights = devices.cpu, bytearray(b"\1") * MODEL_BYTES
        self.hijacked, self.network_current_names, self.applied = False, (), []

    def to(self, device):
        self.device = str(device)
        if self.device == "meta":
            assert not self.hijacked, "the hijack still holds the weights"
            self.weights = bytearray()
        return self

    def modules(self):
        return [self]

    @property
    def patches(self):
        import networks

        networks.patch(self)
        return self.applied


class SdModelData:
    def __init__(self):
        self.sd_model, self.loaded_sd_models = None, []
        self.was_loaded_at_least_once, self.lock = False, threading.Lock()

    def get_sd_model(self):
        if self.was_loaded_at_least_once:
            return self.sd_model
        with self.lock:
            if self.sd_model is None and not self.was_loaded_at_least_once:
                load_model()
        return self.sd_model

    def set_sd_model(self, model, already_loaded=False):
        self.sd_model = model
        self.loaded_sd_models = [other for other in self.loaded_sd_models if other is not model]
        if model is not None:
            self.loaded_sd_models.insert(0, model)


model_data = SdModelData()


def list_models():
    find_checkpoints(".ckpt", ".safetensors")


def checkpoint_tiles(use_short=False):
    return [info.title for info in checkpoints_list.values()]


def select_checkpoint():
    found = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    if not found and not checkpoints_list:
        raise FileNotFoundError("No checkpoints found.")
    return found or next(iter(checkpoints_list.values()))


def load_model(checkpoint_info=None, already_loaded_state_dict=None):
    from modules import sd_hijack

    info = checkpoint_info or select_checkpoint()
    if model_data.sd_model:
        sd_hijack.model_hijack.undo_hijack(model_data.sd_model)
        send_model_to_trash(model_data.sd_model)
        model_data.loaded_sd_models.remove(model_data.sd_model)
        model_data.sd_model = None
    info.calculate_shorthash()
    shared.opts.data["sd_model_checkpoint"] = info.title
    model = Model(info)
    send_model_to_device(model)
    sd_hijack.model_hijack.hijack(model)
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    script_callbacks.model_loaded_callback(model)
    print(f"Model loaded: {info.title}", flush=True)
    return model


def reload_model_weights(sd_model=None, info=None, forced_reload=False):
    wanted, model = info or select_checkpoint(), sd_model or model_data.sd_model
    if model is not None and model.sd_model_checkpoint == wanted.filename and not forced_reload:
        return model
    return load_model(wanted)


def model_for_picture(p):
    reload_model_weights()


def choose_checkpoint(name):
    shared.opts.set("sd_model_checkpoint", name)
    shared.opts.save(shared.config_filename)
    return shared.opts.sd_model_checkpoint, shared.opts.dumpjson()


def check_for_cards():
    """The page of embeddings is made anew with that of LoRAs."""
    from modules import sd_hijack

    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)


def send_model_to_cpu(model):
    if model is not None:
        model.to(devices.cpu)


def send_model_to_device(model):
    model.to(devices.device)


def send_model_to_trash(model):
    model.to(device="meta")


def unload_model_weights(sd_model=None, info=None):
    send_model_to_cpu(sd_model or shared.sd_model)
    return sd_model


__all__ = ["model_path"]
