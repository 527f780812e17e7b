"""The narrator: a small LLaVA's folder, preset, samples and loss."""
