"""One architecture, opened: the hooks of its plugin as typed methods, and the core's own answers.

``architecture`` asks the plugin and attributes what goes wrong, ``defaults`` answers where it does not,
``restore`` builds a model from a checkpoint. Importing this room needs no torch; ``restore`` does.
"""

from atomtrain.plugins.architecture import Architecture as Architecture
from atomtrain.plugins.architecture import architecture_of as architecture_of
from atomtrain.plugins.architecture import open_architecture as open_architecture
