"""Folders and files of any storage: opened, listed, written whole, tried again; knows neither Ray nor clips."""
