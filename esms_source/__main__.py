"""Run ``esms`` as ``python -m esms_source``."""

from esms_source.cli import main

main()
