"""What every part of the WebUI shares. `sd_model` loads the model when it is asked for and none was ever loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from modules import options, shared_state
from modules.options import OptionInfo, options_section
from modules.paths import data_path
from modules.shared_cmd_options import cmd_opts

__all__ = ["OptionInfo", "cmd_opts", "options_section", "opts", "state"]

is_forge = importlib.util.find_spec("modules_forge") is not None
config_filename = str(Path(data_path, "config.json"))
demo: Any = None
state = shared_state.State()
total_tqdm = SimpleNamespace(clear=lambda: None)
options_templates = options_section(
    ("sd", "Stable Diffusion"),
    {
        "sd_model_checkpoint": OptionInfo(None, "Stable Diffusion checkpoint"),
        "sd_checkpoint_hash": OptionInfo("", "SHA256 hash of the current checkpoint"),
        "sd_vae": OptionInfo("Automatic", "SD VAE"),
        "CLIP_stop_at_last_layers": OptionInfo(1, "Clip skip"),
        "sd_checkpoints_limit": OptionInfo(1, "Maximum number of checkpoints loaded at the same time"),
        "sd_checkpoints_keep_in_cpu": OptionInfo(True, "Only keep one model on device"),
        "localization": OptionInfo("None", "Localization"),
        "disabled_extensions": OptionInfo([], "Disable these extensions"),
        "lora_preferred_name": OptionInfo("Alias from file", "When adding to prompt, refer to Lora by"),
        "extra_networks_default_multiplier": OptionInfo(1.0, "Default multiplier for extra networks"),
        "samples_save": OptionInfo(True, "Always save all generated images"),
        "outdir_txt2img_samples": OptionInfo("output/txt2img-images", "Output directory for txt2img images"),
    },
)
opts = options.Options(options_templates)
opts.load(config_filename)


def walk_files(folder: str, allowed_extensions: Any = None) -> list[str]:
    found = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and ".deleted" not in path.parts]
    return [str(path) for path in found if not allowed_extensions or path.suffix in allowed_extensions]


class _Shared(ModuleType):
    @property
    def sd_model(self) -> Any:
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = _Shared
