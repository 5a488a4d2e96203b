"""Figures of other tools, and records in their formats."""
