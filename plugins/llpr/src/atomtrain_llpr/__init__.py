"""LLPR: uncertainties of any trained model from the features before its last layer, as an atomtrain plugin.

The hooks are in :mod:`atomtrain_llpr.plugin`; nothing is imported here, so that naming the
architecture costs nothing.
"""

__version__ = "0.1.0"
