"""One training from options to ``model.pt``: what the command line, Python and the conformance kit run.

:func:`plan` checks what the options say, :func:`prepare` reads the data and makes a model ready, ``train_model``
of the architecture trains it, :func:`finish` exports it and says how good it is; or :func:`forecast` tries a step and
says what a training would take. ``start`` has the three ways a model begins, ``directory`` is what lies in the folder
of a run, ``workplace`` the machine and the processes.
"""

from atomtrain.runs.evaluations import Findings as Findings
from atomtrain.runs.evaluations import Finished as Finished
from atomtrain.runs.finish import TrainingResult as TrainingResult
from atomtrain.runs.finish import finish as finish
from atomtrain.runs.forecast import Forecast as Forecast
from atomtrain.runs.forecast import forecast as forecast
from atomtrain.runs.plan import plan as plan
from atomtrain.runs.prepare import prepare as prepare
from atomtrain.runs.workplace import Workplace as Workplace
from atomtrain.runs.workplace import together as together
from atomtrain.runs.workplace import workplace as workplace
