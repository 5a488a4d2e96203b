"""Campaigns: what a plan wants is measured, run after run, until nothing is left."""
