"""From files to batches: readers, the packed store, splits, pair lists, batches; and writers.

Nothing here knows an architecture or trains; metatensor appears only in readers and writers of its
files.
"""

from atomtrain.data.batch import Batch, BatchSource
from atomtrain.data.datasets import Datasets, build_datasets
from atomtrain.data.kept import Kept
from atomtrain.data.neighbors import PairList, pair_list
from atomtrain.data.noise import Noise
from atomtrain.data.readers import Files, Frame
from atomtrain.data.sampling import Limits, epoch_batches
from atomtrain.data.sections import LoadedSection, read_section
from atomtrain.data.store import Label, StructureStore, fingerprint
