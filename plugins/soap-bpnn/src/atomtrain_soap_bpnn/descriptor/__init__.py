"""Power spectra of the densities of atomic neighbourhoods (:mod:`atomtrain_density`).

Three paths with one set of numbers: plain torch operations (TorchScript and autograd; ``radial``,
``spectrum``), ``fast``, which knows the derivatives in closed form (what training runs), and ``closed``,
the same for exported scalars. They agree with torch-spex to rounding, which the tests hold.

For atom i, neighbours j of element s within the cutoff (SOAP, doi 10.1002/qua.24927)::

    density   c[i, s, l, m, n] = sum_j f_cut(r) R_nl(r) Y_lm(direction)
    spectrum  p[i, l, (s n), (s' n')] = sum_m c[i, s, l, m, n] c[i, s', l, m, n']
"""
