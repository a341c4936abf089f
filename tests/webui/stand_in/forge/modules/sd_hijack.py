"""Kept in Forge for old extensions; nothing is put into a model, and there is no list of embeddings."""

from __future__ import annotations


class StableDiffusionModelHijack:
    def hijack(self, model):
        """An empty stub there."""

    def undo_hijack(self, model):
        """An empty stub there."""


model_hijack = StableDiffusionModelHijack()
