"""How a training and its results are shown: the log and progress, ``train.csv``, tables, pictures.

Nothing here computes results; the units people use are in :mod:`atomtrain.training.units`.
"""
