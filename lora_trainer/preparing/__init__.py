"""What looks at the pictures before training: where to cut, which tags. Loads models, so it runs in the worker only."""
