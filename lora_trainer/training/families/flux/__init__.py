"""The Flux.1 family: a transformer that predicts velocities, told a text by T5 and by CLIP."""
