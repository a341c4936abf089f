"""The settings of a training run: defined once, checked all at once, read from and written to TOML."""

from lora_trainer.config.advice import idle, notices
from lora_trainer.config.conversion import as_dict, from_dict, with_values
from lora_trainer.config.file_name import file_name_fault
from lora_trainer.config.presets import PRESETS, Preset, apply_preset
from lora_trainer.config.problems import BadInput, Problem
from lora_trainer.config.schema import schema, settings_table
from lora_trainer.config.setting import Setting
from lora_trainer.config.settings import FAMILIES, PANELS, SETTINGS, SUBSET_SETTINGS, Config, Subset
from lora_trainer.config.toml_file import dump_toml, load_toml, read_text
from lora_trainer.config.validation import check, problems

__all__ = [
    "FAMILIES",
    "PANELS",
    "PRESETS",
    "SETTINGS",
    "SUBSET_SETTINGS",
    "BadInput",
    "Config",
    "Preset",
    "Problem",
    "Setting",
    "Subset",
    "apply_preset",
    "as_dict",
    "check",
    "dump_toml",
    "file_name_fault",
    "from_dict",
    "idle",
    "load_toml",
    "notices",
    "problems",
    "read_text",
    "schema",
    "settings_table",
    "with_values",
]
