"""What a captioning model is shown of a clip: key frames in a grid, or frames as they are."""
