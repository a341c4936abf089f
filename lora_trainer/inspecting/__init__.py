"""What a weights file is, read from its header, without torch: a base model of a family, a LoRA, or another kind."""

from __future__ import annotations

from lora_trainer.inspecting.describe import describe
from lora_trainer.inspecting.facts import FAMILIES, Facts
from lora_trainer.inspecting.identify import BaseModel, identify

__all__ = ["FAMILIES", "BaseModel", "Facts", "describe", "identify"]
