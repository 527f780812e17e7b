"""The embedded corpus: short real H.264 clips drawn by a program, captions from a grammar, and the truth about both."""
