"""``python -m tokrig``: the same as the command ``tokrig``."""

from tokrig.cli.main import main

if __name__ == "__main__":
    main(prog_name="tokrig")
