"""jobs/features.py: frame and region features of every clip, each clip's exactly once."""
