"""Operator implementations, one file per family."""
