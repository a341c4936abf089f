"""What is wrong with a folder of pictures and captions, before a training run finds out. Nothing is written."""
