"""What a vision-language model is shown of a clip, and what is made of its words; nothing here knows Ray."""
