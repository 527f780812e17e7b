"""The narrate job: long videos, window by window, to a caption table and a time line of each."""
