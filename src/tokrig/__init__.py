"""tokrig measures how fast open-weight language models run on the machines people own."""

__version__ = "0.1.0"
