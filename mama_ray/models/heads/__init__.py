"""Heads that answer questions on a dual encoder which has no way of its own to answer."""
