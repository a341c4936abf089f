"""What is wrong with a folder of pictures and captions, before a training run finds out. Nothing is written."""

from lora_trainer.dataset.doctor.examine import ENLARGED, Checkup, examine
from lora_trainer.dataset.doctor.findings import KINDS, Finding
from lora_trainer.dataset.doctor.looks import Trained

__all__ = ["ENLARGED", "KINDS", "Checkup", "Finding", "Trained", "examine"]
