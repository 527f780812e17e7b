"""VGT: the model over region graphs, its presets, and the layout its weights come in."""
