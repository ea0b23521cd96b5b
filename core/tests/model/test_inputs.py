"""Inputs beside atoms: what a model says of them, and what its exported file asks engines for."""

from pathlib import Path
from typing import Dict

import pytest
import torch
from ase import Atoms
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import ModelEvaluationOptions, ModelOutput
from metatomic_ase import MetatomicCalculator
from torch import Tensor

from atomtrain.data import Label, StructureStore
from atomtrain.errors import PluginError
from atomtrain.evaluation import systems_of
from atomtrain.graph import AtomGraph
from atomtrain.model import STANDARD, ExtraInput, PotentialModel, Predictor, inputs_of
from atomtrain.model.export import export_predictor, load_model, requested_inputs, save_model
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.verification.verify import verify

INFO = DatasetInfo(
    "angstrom", (1, 8), {"energy": TargetInfo("energy", quantity="energy", unit="eV")}
)


class Charged(PotentialModel):
    """An energy of the total charge alone, and an atom's share of the moment that it is given."""

    def __init__(self, own: bool = False) -> None:
        super().__init__(INFO)
        self.cutoff = self.interaction_range = 3.0
        self.own = own

    @torch.jit.ignore
    def extra_inputs(self) -> Dict[str, ExtraInput]:
        own = {"test::field": ExtraInput(width=3), "test::weight": ExtraInput(per_atom=True)}
        return {"charge": STANDARD["charge"], **(own if self.own else {})}

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        charges = graph.extras["charge"].index_select(0, graph.structure)
        if self.own:
            field = graph.extras["test::field"].index_select(0, graph.structure)
            charges = charges + field.sum(1, keepdim=True) * graph.extras["test::weight"]
        near = torch.zeros_like(graph.positions[:, 0]).index_add(
            0, graph.centers, (1 - torch.linalg.vector_norm(graph.vectors, dim=1) / 3) ** 3
        )
        return charges[:, 0] * (1 + near)


def exported(folder: Path, model: PotentialModel) -> Path:
    path = folder / "model.pt"
    save_model(export_predictor(Predictor(model, INFO), {}, dtype="float64"), path)
    return path


def store(**extra: Label) -> StructureStore:
    """Two lone atoms, and one more."""
    return StructureStore(
        positions=torch.tensor([[0.0, 0, 0], [9.0, 0, 0], [0.0, 0, 0]], dtype=torch.float64),
        types=torch.tensor([1, 8, 8]),
        cells=torch.zeros(2, 3, 3, dtype=torch.float64),
        pbc=torch.zeros(2, 3, dtype=torch.bool),
        offsets=torch.tensor([0, 2, 3]),
        extra=extra,
    )


def test_values_of_structures_and_atoms_in_the_exported_model(tmp_path: Path) -> None:
    model = load_model(exported(tmp_path, Charged(own=True)))
    asked = requested_inputs(model)
    assert {k: (v.sample_kind, v.unit) for k, v in asked.items()} == {
        "charge": ("system", "e"),
        "test::field": ("system", ""),
        "test::weight": ("atom", ""),
    }
    given = store(
        charge=Label(torch.tensor([[1.0], [-2.0]]).double(), False),
        **{
            "test::field": Label(torch.tensor([[0.0, 0.5, 0.5], [1.0, 1.0, 0.0]]).double(), False),
            "test::weight": Label(torch.tensor([[1.0], [3.0], [5.0]]).double(), True),
        },
    )
    output = {"energy": ModelOutput(unit="eV", sample_kind="system")}
    options = ModelEvaluationOptions("angstrom", output)
    lists = model.requested_neighbor_lists()
    for part, wanted in ((torch.tensor([0, 1]), [6.0, 8.0]), (torch.tensor([1]), [8.0])):
        systems, _ = systems_of(given, part, lists, "angstrom", torch.float64, "cpu", False, asked)
        found = model(systems, options, check_consistency=True)["energy"].block().values
        assert found.flatten().tolist() == pytest.approx(wanted)
    # an engine that gives none, and one that gives a value too many
    bare, _ = systems_of(given, torch.tensor([0]), lists, "angstrom", torch.float64, "cpu", False)
    with pytest.raises(Exception, match="needs the input 'charge' of every system, and the engine"):
        model(bare, options, check_consistency=False)
    bare[0].add_data("charge", two_values())
    with pytest.raises(Exception, match="'charge' should have 1 x 1 values for a system, and has"):
        model(bare, options, check_consistency=False)


def two_values() -> TensorMap:
    samples = Labels("system", torch.tensor([[0], [1]]))
    values = torch.zeros(2, 1, dtype=torch.float64)
    block = TensorBlock(values, samples, [], Labels("charge", torch.tensor([[0]])))
    return TensorMap(Labels.single(), [block])


def test_ase_gives_charges(tmp_path: Path) -> None:
    water = Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])
    water.calc = MetatomicCalculator(
        str(exported(tmp_path, Charged())), device="cpu", check_consistency=True
    )
    energies = []
    for charge in (-1, 0, 1, 2):
        water.info["charge"] = charge
        energies.append(water.get_potential_energy())
    assert energies == pytest.approx([k * energies[2] for k in (-1, 0, 1, 2)])
    assert energies[2] > 2.1


def test_a_file_is_verified_with_inputs(tmp_path: Path) -> None:
    model = Charged()
    file = load_model(exported(tmp_path, model))
    for predictor in (None, Predictor(model, INFO)):
        found = verify(file, None, predictor)
        assert not found.wrong and found.right, found
    charges = {"charge": Label(torch.tensor([[1.0], [-2.0]]).double(), False)}
    found = verify(file, store(**charges), Predictor(model, INFO))
    assert not found.wrong and found.right, found


def test_names_are_metatomics() -> None:
    class Misnamed(Charged):
        @torch.jit.ignore
        def extra_inputs(self) -> Dict[str, ExtraInput]:
            return {"chrge": STANDARD["charge"]}

    with pytest.raises(PluginError, match=r"Misnamed.extra_inputs: 'chrge' is not a standard name"):
        inputs_of(Misnamed())


def test_two_models_agree_on_an_input() -> None:
    class Around(Charged):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Charged()

        @torch.jit.ignore
        def extra_inputs(self) -> Dict[str, ExtraInput]:
            return {"charge": ExtraInput(per_atom=True)}

    assert inputs_of(torch.nn.ModuleList([Charged(), Charged(own=True)])).keys() == {
        "charge",
        "test::field",
        "test::weight",
    }
    with pytest.raises(PluginError, match="another model around this one takes another 'charge'"):
        inputs_of(Around())


@pytest.mark.parametrize("wrong", [{"examples": (1.0, 1.0)}, {"width": 0}])
def test_an_input_that_is_none(wrong: Dict[str, object]) -> None:
    with pytest.raises(ValueError, match="two examples that differ"):
        ExtraInput(**wrong)  # type: ignore[arg-type]
