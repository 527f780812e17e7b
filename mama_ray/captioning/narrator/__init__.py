"""A narrator, a LLaVA that writes captions: its folder, what it learns from and how, and the small one to begin with."""
