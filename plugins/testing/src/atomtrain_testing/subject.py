"""The architecture under test, and what the checks ask of it: models, predictions, folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atomtrain.contract import BuildContext
from atomtrain.errors import TargetError
from atomtrain.model import ExtraInput, Model, Predictor, inputs_of
from atomtrain.options import BaseTrainerHypers, TrainerHypers
from atomtrain.plugins import Architecture, open_architecture
from atomtrain.plugins.restore import restore
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import IN_EXTRAS, known_kinds
from atomtrain_testing.checks import ConformanceError, NotApplicable, Outcome
from atomtrain_testing.examples import EXAMPLES, Example
from atomtrain_testing.predictions import predict_one, with_input
from atomtrain_testing.structures import some_molecule

if TYPE_CHECKING:
    from ase import Atoms
    from pydantic import BaseModel


@dataclass(eq=False)
class Subject:
    """An installed architecture with the hypers it is tested with, and what is promised of it.

    ``model_hypers`` and ``training_hypers`` are sections of an options file: small ones make quick
    checks. ``energy_conservative`` and ``equivariant`` are promises; one that is not made is not
    checked. ``tolerance`` is what float64 predictions may differ by where physics says they are
    equal, relative to the largest number of the prediction. ``fit_epochs`` is how long one batch is
    fitted (by trainers that have epochs), ``fit_ratio`` the part of the loss that may be left. ``golden``
    is the folder of checkpoints of earlier versions, ``exempt`` maps names of checks that are not run to reasons,
    ``examples`` maps kinds of targets to examples where the kit's own do not suit. ``dtypes`` are the
    floating point types it is run in, all that are declared if empty: those of a wrapper depend on
    the model inside.
    """

    name: str
    model_hypers: Mapping[str, Any] = field(default_factory=dict)
    training_hypers: Mapping[str, Any] = field(default_factory=dict)
    atomic_types: tuple[int, ...] = (1, 6, 8)
    energy_conservative: bool = True
    equivariant: bool = True
    tolerance: float = 1e-8
    fit_epochs: int = 300
    fit_ratio: float = 0.02
    dtypes: tuple[str, ...] = ()
    golden: Path | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict, repr=False)

    # -- the plugin ----------------------------------------------------------------------------

    @cached_property
    def architecture(self) -> Architecture:
        """The plugin, opened."""
        return open_architecture(self.name)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of targets it declares, but for those of extras that are not installed."""
        absent = IN_EXTRAS.keys() - set(known_kinds())
        return tuple(k for k in self.architecture.info.target_kinds if k not in absent)

    @property
    def dtype(self) -> torch.dtype:
        """The floating point type it is trained in here."""
        declared = self.architecture.info.dtypes
        dtype = getattr(torch, "float32" if "float32" in declared else declared[0])
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def precision(self) -> int:
        """The same as ``base_precision`` of the options."""
        return int(torch.finfo(self.dtype).bits)

    def hypers(self) -> BaseModel:
        """The model's hypers, validated."""
        return self.architecture.model_hypers_class().model_validate(dict(self.model_hypers))

    def trainer_hypers(self, **changes: Any) -> BaseTrainerHypers:
        """The hypers of the training, validated."""
        cls = self.architecture.trainer_hypers_class()
        hypers = cls.model_validate({**self.training_hypers, **changes})
        if not isinstance(hypers, BaseTrainerHypers):
            raise ConformanceError(
                f"trainer_hypers gives {cls.__name__}, which is no subclass of "
                "atomtrain.options.BaseTrainerHypers (or, for the core's engine, of TrainerHypers)"
            )
        return hypers

    def has_hyper(self, name: str) -> bool:
        """Whether trainings have this hyper; those of one's own may be without epochs, for instance."""
        return name in self.architecture.trainer_hypers_class().model_fields

    @property
    def finetunes(self) -> bool:
        """Whether a training can start from the weights of another."""
        return issubclass(self.architecture.trainer_hypers_class(), TrainerHypers)

    @property
    def trains_itself(self) -> bool:
        """Whether the architecture answers ``train_model``."""
        return self.architecture.overrides("train_model")

    # -- targets -------------------------------------------------------------------------------

    def examples_of(self, kind: str) -> tuple[Example, ...]:
        """Examples of targets of a kind, the author's before the kit's."""
        if kind in self.examples:
            return tuple(self.examples[kind])
        if kind not in EXAMPLES:
            raise ConformanceError(
                f"the kit knows no target of kind '{kind}': give it one in 'examples'"
            )
        return EXAMPLES[kind]

    @cached_property
    def main(self) -> Example:
        """The target that most checks look at: an energy, else the first one taken of the first kind declared."""
        examples = self.examples_of("scalar" if "scalar" in self.kinds else self.kinds[0])
        for example in examples:
            try:
                self.build(self.info(example))
            except TargetError:
                continue
            except Exception:  # 'builds' says what is wrong
                pass
            return example
        return examples[0]

    @property
    def energy(self) -> str:
        """Name of the energy. NotApplicable where the architecture has none."""
        if not self.info(self.main).targets[self.main.name].is_energy:
            raise NotApplicable("the architecture predicts no energy")
        return self.main.name

    def info(self, *examples: Example) -> DatasetInfo:
        """What a model of these targets is built for."""
        from atomtrain.options import TargetSection, target_info

        targets: dict[str, TargetInfo] = {}
        for example in examples:
            section = TargetSection.model_validate(dict(example.section))
            info = target_info(example.name, section, self.architecture.info.default_kind)
            if info.is_energy and example.section.get("forces"):
                info = TargetInfo.from_dict({**info.to_dict(), "gradients": ["forces", "strain"]})
            targets[example.name] = info
        return DatasetInfo("angstrom", self.atomic_types, targets)

    # -- models --------------------------------------------------------------------------------

    def build(self, info: DatasetInfo | None = None, seed: int = 1) -> Model:
        """The architecture's module as it leaves ``build_model``."""
        torch.manual_seed(seed)
        context = BuildContext("train", self.trainer_hypers(), restore=restore)
        return self.architecture.build_model(self.hypers(), info or self.info(self.main), context)

    @cached_property
    def inputs(self) -> dict[str, ExtraInput]:
        """What its model takes beside atoms, by name."""
        return inputs_of(self.build())

    def in_turn(self, frames: Sequence[Atoms]) -> list[Atoms]:
        """Copies with examples of the extra inputs, another one for each."""
        found = []
        for k, atoms in enumerate(frames):
            copied = atoms
            for name, one in self.inputs.items():
                copied = with_input(copied, name, one, k)
            found.append(copied)
        return found

    def extra_data(self) -> dict[str, Any]:
        """The section of the options that gives the extra inputs of such structures."""
        return {
            name: {
                "key": name,
                "sample_kind": "atom" if one.per_atom else "system",
                "num_subtargets": one.width,
            }
            for name, one in self.inputs.items()
        }

    def predictor(self, *examples: Example) -> Predictor:
        """A float64 predictor whose weights, compositions and scales are away from their start."""
        info = self.info(*(examples or (self.main,)))
        predictor = Predictor(self.build(info), info).eval()
        predictor.model.double()
        with torch.no_grad():
            for parameter in predictor.model.parameters():
                if parameter.is_floating_point():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
            for name, target in info.targets.items():
                affine = predictor.affine_of(name)
                affine.scale.fill_(0.7)
                if all(block.invariant for block in target.blocks):
                    shift = torch.linspace(-1.0, 2.0, affine.shift.numel())
                    affine.shift.copy_(shift.view_as(affine.shift))
        return predictor

    @cached_property
    def predictors(self) -> dict[str, Predictor]:
        """A predictor for each example of a declared kind that the architecture can take.

        Those it cannot take are left out: what is wrong with them, 'target_kinds' says.
        """
        found: dict[str, Predictor] = {self.main.name: self.predictor()}
        molecule = some_molecule(self.atomic_types)
        for kind in self.kinds:
            for example in self.examples_of(kind):
                if example.name in found:
                    continue
                try:
                    predictor = self.predictor(example)
                    blocks = predict_one(predictor, molecule).blocks[example.name]
                    layout = predictor.dataset_info.targets[example.name].blocks
                    usable = [b.shape[1:] for b in blocks] == [b.shape for b in layout]
                except Exception:
                    continue
                if usable:
                    found[example.name] = predictor
        return found

    # -- files and processes -------------------------------------------------------------------

    @cached_property
    def folder(self) -> Path:
        """A folder of its own, gone when the subject is."""
        path = tempfile.mkdtemp(prefix="atomtrain-check-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return Path(path)

    def new_folder(self, name: str) -> Path:
        """An empty folder in it."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


_LAUNCHERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "SLURM_STEP_ID")
"""what tells a process that it is one of several"""


def environment(*first: str | Path, **changes: str) -> dict[str, str]:
    """For a fresh interpreter that finds the same packages, alone and with one thread.

    What is in the folders ``first`` it finds before them.
    """
    env = {k: v for k, v in os.environ.items() if k not in _LAUNCHERS}
    path = os.pathsep.join([*map(str, first), *(p for p in sys.path if p)])
    return {
        **env,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        **changes,
    }


def run_python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints; ConformanceError with its last line where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=300,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise ConformanceError(f"a fresh interpreter fails: {lines[-1]}")
    return done.stdout


def launched(folder: Path, log: Path, place: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A training in ``folder`` as torchrun starts it, with variables that say its ``place``; it prints into ``log``."""
    with open(log, "w", encoding="utf-8") as stream:
        return subprocess.Popen(
            # weights are what is asked for: no errors, no evaluations of what happens to be installed
            [sys.executable, "-m", "atomtrain", "train", "options.yaml", "-r", "final_eval=false"],
            cwd=folder,
            env=environment(**place),
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
