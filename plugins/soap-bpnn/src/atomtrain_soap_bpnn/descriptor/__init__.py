"""Densities and power spectra of atomic neighbourhoods.

Two paths with one set of numbers: plain torch operations (what an exported model runs, TorchScript
and autograd; ``basis``, ``density``, ``spectrum``), and ``fast``, which knows the derivatives in
closed form (what training runs). They agree with torch-spex to rounding, which the tests hold.

For atom i, neighbours j of element s within the cutoff (SOAP, doi 10.1002/qua.24927)::

    density   c[i, s, l, m, n] = sum_j f_cut(r) R_nl(r) Y_lm(direction)
    spectrum  p[i, l, (s n), (s' n')] = sum_m c[i, s, l, m, n] c[i, s', l, m, n']
"""
