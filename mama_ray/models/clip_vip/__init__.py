"""CLIP-ViP: the model, its presets, and the layouts its weights come in."""
