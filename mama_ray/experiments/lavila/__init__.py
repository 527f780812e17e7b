"""LaViLa from human pairs to the dual encoder that learned from all texts, step by step."""
