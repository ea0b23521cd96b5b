"""``python -m atomtrain`` is the command line."""

from atomtrain.cli.app import main

main()
