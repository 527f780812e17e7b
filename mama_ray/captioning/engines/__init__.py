"""What writes captions: an engine, what it is asked and what it answers."""
