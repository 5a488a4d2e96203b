"""Versions that a record names. Apart from the model, so that a list need not load it."""

SCHEMA_VERSION = 2
METHODOLOGY_VERSION = 2
