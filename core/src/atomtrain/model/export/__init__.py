"""From a trained predictor to a ``model.pt`` that any metatomic engine runs, and back.

Here live the TorchScript wrapper, what the file says about itself, and the writing, checking and
opening of the file. An exported file needs metatomic-torch and nothing else: no atomtrain, no
architecture, no extension. Training and data folders have no place here.
"""

from atomtrain.model.export.archive import load_model, save_model
from atomtrain.model.export.build import export_predictor
from atomtrain.model.export.metadata import (
    describe_checkpoint,
    merge_metadata,
    read_metadata,
)
