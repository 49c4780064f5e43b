"""Measures of quality: one pure function a file."""
