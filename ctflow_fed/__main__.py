"""``python -m ctflow_fed`` is ``ctflow``."""

from ctflow_fed.cli import main

main()
