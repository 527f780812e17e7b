"""The app: a corpus to search, videos to narrate, weights to look at, in a browser."""
