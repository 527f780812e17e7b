"""Features of a folder of videos, kept, and queries in words against them."""
