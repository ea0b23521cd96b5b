"""Densities of atomic neighbourhoods, and what architectures make of them.

A library for architectures and no architecture itself. For atom i, neighbours j of element s within the
cutoff::

    density   c[i, s, l, m, n] = sum_j R_nl(r) Y_lm(direction)

Three ways with one set of numbers: plain torch operations (``radial``, ``harmonics``, ``density``), autograd
functions that know the first derivatives (``derivatives``, for training), and TorchScript that knows them
(``closed``, for exported models). ``elements`` has layers for each element of the center, ``tensors`` and
``targets`` what predicts scalars, vectors and tensors. Nothing is imported here.
"""

__version__ = "0.1.0"
