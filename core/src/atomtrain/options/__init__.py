"""The options file: what a user may write, validated and completed. Needs no torch.

Every section is a pydantic model whose docstrings are the documentation; every problem is answered
with file, line, key and the nearest known name. Nothing here reads data or knows an architecture.
"""

from atomtrain.options.dataset import DatasetSection as DatasetSection
from atomtrain.options.dataset import GradientSection as GradientSection
from atomtrain.options.dataset import SystemsSection as SystemsSection
from atomtrain.options.dataset import TargetSection as TargetSection
from atomtrain.options.finetune import Finetune as Finetune
from atomtrain.options.finetune import LowRankSection as LowRankSection
from atomtrain.options.finetune import ReplaySection as ReplaySection
from atomtrain.options.head import HeadSection as HeadSection
from atomtrain.options.loss import LossSpec as LossSpec
from atomtrain.options.options import IndicesSection as IndicesSection
from atomtrain.options.options import Options as Options
from atomtrain.options.options import SplitSection as SplitSection
from atomtrain.options.options import check_units as check_units
from atomtrain.options.options import complete as complete
from atomtrain.options.options import dump_yaml as dump_yaml
from atomtrain.options.options import load_eval_options as load_eval_options
from atomtrain.options.options import load_options as load_options
from atomtrain.options.options import read_indices as read_indices
from atomtrain.options.options import target_info as target_info
from atomtrain.options.trainer import BaseTrainerHypers as BaseTrainerHypers
from atomtrain.options.trainer import TrainerHypers as TrainerHypers
from atomtrain.options.trainer import finetuning as finetuning
from atomtrain.sections import Section as Section
from atomtrain.sections import validate as validate
