"""LaViLa's narrator, a GPT-2 that looks at a clip: the model, its presets, and the layouts its weights come in."""
