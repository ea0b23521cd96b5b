"""The training engine and what it writes: loop, loss, optimiser, observers, checkpoints.

It sees stores of structures and a predictor; it knows no architecture, reads no data files and no
options file.
"""
