"""Captions by models: tags of the WD14 family and DeepDanbooru, sentences of BLIP and Florence-2. Worker only."""
