"""The bundled simulator in its fast mode, in a process of its own."""

from __future__ import annotations

import argparse

from esms_source.simulator import Behaviour, serve


def main() -> None:
    """Answer until interrupted; the first line on stdout is the base URL."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=0, help="0 lifts the limit")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--record", action="store_true", help="count every RefId")
    given = parser.parse_args()
    behaviour = Behaviour(
        plain=True,
        rate=given.rate,
        latency=given.latency,
        record_ref_ids=given.record,
    )
    serve(behaviour, port=0, announce=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
