"""From a trained predictor to a ``model.pt`` that any metatomic engine runs, and back.

Here live the TorchScript wrapper, what the file says about itself, and the writing, checking and
opening of the file. An exported file needs metatomic-torch and nothing else: no atomtrain, no
architecture, no extension. Training and data folders have no place here.
"""

from atomtrain.model.export.archive import load_model as load_model
from atomtrain.model.export.archive import requested_inputs as requested_inputs
from atomtrain.model.export.archive import save_model as save_model
from atomtrain.model.export.build import export_predictor as export_predictor
from atomtrain.model.export.build import with_second_derivatives as with_second_derivatives
from atomtrain.model.export.metadata import describe_checkpoint as describe_checkpoint
from atomtrain.model.export.metadata import merge_metadata as merge_metadata
from atomtrain.model.export.metadata import read_metadata as read_metadata
