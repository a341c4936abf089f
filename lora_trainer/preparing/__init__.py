"""Pictures made ready to train on: where to cut them, and all of it in one go. Loads models, so for the worker only."""
