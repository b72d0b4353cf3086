"""``python -m hub`` is ``yici``."""

from hub.cli import main

main()
