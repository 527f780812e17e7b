"""Clips, shards, their index and order, and the way from a video to frames and tokens. Nothing here knows Ray."""
