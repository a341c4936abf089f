"""The routes on the host's own app: under /lora-trainer/v1 ours, under /lora-trainer/aws those of AWS's extension."""

from lora_trainer.api.access import Access
from lora_trainer.api.mounting import mount

__all__ = ["Access", "mount"]
