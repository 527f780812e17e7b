"""The rephrasing job: human captions of shards through a pool of engines, paraphrases into a caption table."""
