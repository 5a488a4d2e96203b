"""Formats of other tools that are read, one file each, exposing ``FORMAT``."""
