"""The pages: one file a kind, each exposing ``PAGE``."""
