"""Whether the file of an exported model does what it should, found by running it as an engine does.

TorchScript rewrites a model after its first calls, derivatives included, and what an architecture prepares for export
may be prepared wrongly: a file can be wrong where the trained model is right. So the file is called several times,
on other structures and numbers of structures, and what it gives is held against the trained model (or its own other
calls, where that is not known), and its forces and stress against differences of its own energy.
"""

from atomtrain.verification.verify import Verification as Verification
from atomtrain.verification.verify import report as report
from atomtrain.verification.verify import save_verified as save_verified
from atomtrain.verification.verify import unverified as unverified
from atomtrain.verification.verify import verify as verify
