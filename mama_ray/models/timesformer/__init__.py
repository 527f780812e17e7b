"""TimeSformer dual encoder: the model, its presets, and the layouts its weights come in."""
