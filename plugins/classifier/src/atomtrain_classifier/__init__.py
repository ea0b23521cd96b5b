"""Classifier: classes of structures from the features of any trained model, as an atomtrain plugin.

The hooks are in :mod:`atomtrain_classifier.plugin`; nothing is imported here, so that naming the
architecture costs nothing.
"""

__version__ = "0.1.0"
