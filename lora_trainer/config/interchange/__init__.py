"""Configs of other trainers read and written: sd-scripts and the programs around it."""

from lora_trainer.config.interchange.exporting import Exported, to_sd_scripts
from lora_trainer.config.interchange.files import aws_source, import_files, presets_in
from lora_trainer.config.interchange.importing import Imported, from_sd_scripts
from lora_trainer.config.interchange.report import Line, Report
from lora_trainer.config.interchange.source import Source
from lora_trainer.config.interchange.start_files import start_files

__all__ = [
    "Exported",
    "Imported",
    "Line",
    "Report",
    "Source",
    "aws_source",
    "from_sd_scripts",
    "import_files",
    "presets_in",
    "start_files",
    "to_sd_scripts",
]
