"""Dual encoders as plain modules, with import and export of published weights."""
