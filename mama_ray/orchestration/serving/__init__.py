"""The app: a person searches a corpus, narrates a video and cleans a data set in the browser."""
