"""Bounds learned from clean samples."""
