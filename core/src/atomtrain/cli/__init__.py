"""The command line: one file a command, everything heavy imported inside their bodies.

``atomtrain --help`` imports neither torch nor pydantic. Commands call :mod:`atomtrain.api` and do
nothing it does not.
"""
