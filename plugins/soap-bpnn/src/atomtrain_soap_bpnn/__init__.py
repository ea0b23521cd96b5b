"""SOAP-BPNN: a Behler-Parrinello network on SOAP features, as an atomtrain plugin.

The hooks are in :mod:`atomtrain_soap_bpnn.plugin`; nothing is imported here, so that naming the
architecture costs nothing.
"""

__version__ = "0.1.0"
