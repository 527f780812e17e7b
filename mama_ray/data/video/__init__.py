"""From a video's bytes to frames: containers, decoders, sampling, transforms, and the guarded process they run in."""
