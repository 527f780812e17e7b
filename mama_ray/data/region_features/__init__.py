"""Features of frames and regions: which frames, boxes, objects linked over frames; published files, and our table."""
