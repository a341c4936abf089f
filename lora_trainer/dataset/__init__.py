"""Folders of pictures and captions, and what a training run sees of them. Pillow and numpy only."""
