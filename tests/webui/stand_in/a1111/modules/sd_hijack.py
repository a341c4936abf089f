"""A loaded model has parts of the WebUI's own put into it, which hold on to it until they are taken out again."""

from __future__ import annotations

from modules import shared


class EmbeddingDatabase:
    def load_textual_inversion_embeddings(self, force_reload=False):
        """Asks the model for its width; fails where none is there."""
        assert shared.sd_model is not None, "'NoneType' object has no attribute 'cond_stage_model'"


class StableDiffusionModelHijack:
    def __init__(self):
        self.embedding_db = EmbeddingDatabase()

    def hijack(self, model):
        model.hijacked = True

    def undo_hijack(self, model):
        model.hijacked = False


model_hijack = StableDiffusionModelHijack()
