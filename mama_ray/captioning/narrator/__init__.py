"""A narrator, a LLaVA that learns to write captions: its folder, its samples, its loss, and the small one."""
