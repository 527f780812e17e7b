"""What captioners write in place of a caption: they talk of the grid that they were shown, refuse, or answer nothing.

English, Chinese and Japanese. A phrase counts where it is about the picture or the writer, not about what is to be
seen: "a collage of twelve photos" is talk of the grid, "a girl glues photos to a card" is not, and somebody in a video
may well say "I'm sorry". So most patterns want their place in the sentence.
"""
