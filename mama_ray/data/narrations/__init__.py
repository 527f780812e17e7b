"""Narrations of egocentric videos: LaViLa's and EgoVLP's files as rows of annotations."""
