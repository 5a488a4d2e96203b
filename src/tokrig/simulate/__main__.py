"""The simulated server as a program for other programs: ``python -m tokrig.simulate``.

It reads a simulation as one line of JSON from standard input, writes its port, and serves on
127.0.0.1 until standard input closes: whoever started it need not end it. Then it writes its
report as JSON.
"""

from __future__ import annotations

import json
import signal
import sys

from tokrig.simulate.server import Server
from tokrig.simulate.simulation import Simulation


def main() -> None:
    """Serve once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for whoever started it
    server = Server(Simulation.model_validate_json(sys.stdin.readline()))
    sys.stdout.write(f"{server.address[1]}\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(vars(server.serve(sys.stdin.fileno()))) + "\n")


if __name__ == "__main__":
    main()
