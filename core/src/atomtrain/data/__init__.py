"""From files to batches: readers, the packed store, splits, pair lists, batches; and writers.

Nothing here knows an architecture or trains; metatensor appears only in readers and writers of its
files.
"""

from atomtrain.data.batch import Batch as Batch
from atomtrain.data.batch import BatchSource as BatchSource
from atomtrain.data.datasets import Datasets as Datasets
from atomtrain.data.datasets import build_datasets as build_datasets
from atomtrain.data.datasets import joined as joined
from atomtrain.data.datasets import read_aside as read_aside
from atomtrain.data.inputs import check_inputs as check_inputs
from atomtrain.data.inputs import unused as unused
from atomtrain.data.kept import Kept as Kept
from atomtrain.data.neighbors import PairList as PairList
from atomtrain.data.neighbors import pair_list as pair_list
from atomtrain.data.noise import Noise as Noise
from atomtrain.data.readers import Files as Files
from atomtrain.data.readers import display as display
from atomtrain.data.sampling import Limits as Limits
from atomtrain.data.sampling import epoch_batches as epoch_batches
from atomtrain.data.sampling import replay_batches as replay_batches
from atomtrain.data.sections import LoadedSection as LoadedSection
from atomtrain.data.sections import Remarks as Remarks
from atomtrain.data.sections import read_section as read_section
from atomtrain.data.store import Label as Label
from atomtrain.data.store import StructureStore as StructureStore
from atomtrain.data.store import fingerprint as fingerprint
from atomtrain.data.streamed import StreamedStore as StreamedStore
from atomtrain.data.streamed import Structures as Structures
from atomtrain.frame import Frame as Frame
