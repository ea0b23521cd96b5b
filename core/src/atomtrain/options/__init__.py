"""The options file: what a user may write, validated and completed. Needs no torch.

Every section is a pydantic model whose docstrings are the documentation; every problem is answered
with file, line, key and the nearest known name. Nothing here reads data or knows an architecture.
"""

from atomtrain.options.dataset import (
    DatasetSection,
    GradientSection,
    SystemsSection,
    TargetSection,
)
from atomtrain.options.head import HeadSection
from atomtrain.options.loss import LossSpec
from atomtrain.options.options import (
    ArchitectureSection,
    IndicesSection,
    Options,
    check_units,
    complete,
    dump_yaml,
    load_eval_options,
    load_options,
    read_indices,
    target_info,
)
from atomtrain.options.trainer import Finetune, TrainerHypers
from atomtrain.sections import Section
from atomtrain.sections import validate as validate_hypers
