"""Where the WebUI looks for the extension's tab."""

from lora_trainer.hosts import webui

webui.register()
