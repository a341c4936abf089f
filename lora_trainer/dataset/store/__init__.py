"""A set of pictures as a folder that a person can open too, with a small index of it for speed and for undo."""

from lora_trainer.dataset.store.dataset import Dataset, Entry
from lora_trainer.dataset.store.history import Step

__all__ = ["Dataset", "Entry", "Step"]
