"""Molecular dynamics as a figure of merit: does energy stay, do structures stay what the data say they are.

``settings`` is what can be asked, ``structures`` the data and what they have seen, ``watch`` what ends a run,
``engine`` the dynamics by ASE's integrators, ``result`` what is said of them. ``evaluation`` is ``final_eval:
{dynamics: ...}``, ``command`` is ``atomtrain md-check``.
"""

from __future__ import annotations

__version__ = "0.1.0"
