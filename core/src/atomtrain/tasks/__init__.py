"""Tasks: what the ``type`` of a target means, from reading its labels to finishing its predictions.

A :class:`Task` says how many numbers the model gives, how labels are read, which loss and metrics
apply and what is made of the model's output in the end. The core's own are one module each; packages
bring others through ``register_tasks``. Nothing here knows an architecture, and no module here
imports torch before it needs it.
"""

from atomtrain.tasks.base import NoArguments, Task
from atomtrain.tasks.registry import (
    CORE_KINDS,
    IN_EXTRAS,
    find_task,
    known_kinds,
    task_for,
    task_of,
)
