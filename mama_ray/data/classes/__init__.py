"""Class labels of clips and of their texts: how relevant a text is to a clip, and what a classifier learns."""
