"""jobs/index.py: features of every clip and caption in a table that search reads."""
