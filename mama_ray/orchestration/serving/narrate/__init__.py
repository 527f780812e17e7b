"""Narrations of uploaded videos: their queue, the process that narrates one, and the pages and routes over both."""
