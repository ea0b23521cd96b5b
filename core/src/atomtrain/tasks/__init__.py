"""Tasks: what the ``type`` of a target means, from reading its labels to finishing its predictions.

A :class:`Task` says how many numbers the model gives, how labels are read, which loss and metrics
apply and what is made of the model's output in the end. The core's own are one module each; packages
bring others through ``register_tasks``. Nothing here knows an architecture, and no module here
imports torch before it needs it.
"""

from atomtrain.tasks.base import NoArguments as NoArguments
from atomtrain.tasks.base import Task as Task
from atomtrain.tasks.registry import CORE_KINDS as CORE_KINDS
from atomtrain.tasks.registry import IN_EXTRAS as IN_EXTRAS
from atomtrain.tasks.registry import find_task as find_task
from atomtrain.tasks.registry import known_kinds as known_kinds
from atomtrain.tasks.registry import task_for as task_for
from atomtrain.tasks.registry import task_of as task_of
