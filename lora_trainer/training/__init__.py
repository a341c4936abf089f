"""Everything that needs torch: base models, the LoRA, noise, losses, the training loop, previews and saves."""

import logging

# Its import tells every user that it lacks a 4-bit kernel for CPUs, which nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
