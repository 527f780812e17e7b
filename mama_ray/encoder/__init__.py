"""A trained model as a few lines of Python use it: encode videos and texts, publish the weights."""
