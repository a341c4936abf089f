"""Pictures written to files, with the words to them where PNG Info looks for them."""

from __future__ import annotations

from PIL import Image, PngImagePlugin


def save_image_with_geninfo(image, geninfo, filename, extension=None):
    said = PngImagePlugin.PngInfo()
    said.add_text("parameters", geninfo)
    image.save(filename, format=Image.registered_extensions()[extension], pnginfo=said)
