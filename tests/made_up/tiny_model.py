"""A small architecture that does everything right, and subclasses with one thing wrong each.

What the conformance kit is tested with. The hyper ``fault`` chooses a subclass by its name.
"""

from typing import Dict, List, Optional, Tuple

import numpy as np
import torch
from metatensor.torch import Labels, TensorMap
from metatomic.torch import AtomisticModel, ModelOutput, NeighborListOptions, System
from torch import Tensor, nn

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph, n_structures
from atomtrain.model import STANDARD, Constants, ExtraInput, FeatureModel, Growth, Model
from atomtrain.targets import DatasetInfo, TargetInfo

CUTOFF = 3.5
N_RADIAL, N_EMBEDDING = 4, 4


class Head(nn.Module):
    """Scalars by a small network; vectors as sums over pair vectors."""

    def __init__(self, target: TargetInfo) -> None:
        super().__init__()
        if target.kind not in ("scalar", "cartesian") or target.rank > 1:
            raise TargetError(f"'{target.name}' is neither scalar nor a vector")
        n = target.num_subtargets
        self.is_vector = target.kind == "cartesian"
        self.network = nn.Sequential(
            nn.Linear((N_RADIAL + 1) * N_EMBEDDING, 16), nn.Tanh(), nn.Linear(16, n)
        )
        self.gate = nn.Linear(N_EMBEDDING, n)


class Tiny(Model):
    """Densities of neighbours by element embedding, and a network on them."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__()
        self.cutoff = CUTOFF
        self.interaction_range = CUTOFF
        self.embedding = nn.Embedding(120, N_EMBEDDING)
        self.heads = nn.ModuleDict({n: Head(t) for n, t in dataset_info.targets.items()})

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        x = torch.linalg.vector_norm(graph.vectors, dim=1) / self.cutoff
        ending = self.ending(x)
        around = self.embedding(graph.types.index_select(0, graph.neighbors))
        features = torch.cat([self.features(graph, x, ending, around), self.of_center(graph)], 1)
        results: Dict[str, List[Tensor]] = {}
        for name, head in self.heads.items():
            if name in outputs:
                if head.is_vector:
                    pairs = (head.gate(around) * ending.unsqueeze(1)).unsqueeze(1)
                    pairs = graph.vectors.unsqueeze(2) * pairs
                    zero = torch.zeros_like(graph.positions).unsqueeze(2)
                    zero = zero.expand(-1, -1, pairs.shape[2])
                    results[name] = [zero.index_add(0, graph.centers, pairs)]
                else:
                    results[name] = [self.finish(graph, head.network(features), ending)]
        return results

    def ending(self, x: Tensor) -> Tensor:
        """One at no distance, zero with zero slope at the cutoff."""
        return (1.0 - x.square()).clamp(min=0.0) ** 3

    def features(self, graph: AtomGraph, x: Tensor, ending: Tensor, around: Tensor) -> Tensor:
        parts: List[Tensor] = []
        for k in range(4):
            pairs = (ending * torch.cos(k * x)).unsqueeze(1) * around
            zero = torch.zeros(
                [graph.types.shape[0], around.shape[1]],
                dtype=around.dtype,
                device=around.device,
            )
            parts.append(zero.index_add(0, graph.centers, pairs))
        return torch.cat(parts, 1)

    def of_center(self, graph: AtomGraph) -> Tensor:
        return self.embedding(graph.types)

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        """A place to spoil the scalars ``[n_atoms, n]`` in."""
        return values

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        example = self.embedding.weight
        for name, target in dataset_info.targets.items():
            if name not in self.heads:
                self.heads[name] = Head(target).to(example.dtype)

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        growth.take_over(self, trained)


def over_neighbours(graph: AtomGraph, pairs: Tensor) -> Tensor:
    """Sums ``[n_atoms, 1]`` of numbers ``[n_pairs]`` over the neighbours of each atom."""
    zero = torch.zeros_like(graph.positions[:, 0])
    return zero.index_add(0, graph.centers, pairs).unsqueeze(1)


# -- one thing wrong each --------------------------------------------------------------------------


class Jumps(Tiny):
    def ending(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


class Kinks(Tiny):
    def ending(self, x: Tensor) -> Tensor:
        return (1.0 - x).clamp(min=0.0)


class NotExtensive(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        one = torch.ones_like(graph.positions[:, 0])
        n = torch.zeros([n_structures(graph)], dtype=one.dtype, device=one.device)
        n = n.index_add(0, graph.structure, one).index_select(0, graph.structure)
        return values * (1.0 + 0.01 * n.unsqueeze(1))


class LooksUp(Tiny):
    """Knows where up is."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values + 0.1 * over_neighbours(graph, ending * graph.vectors[:, 2].square())


class Handed(Tiny):
    """Adds a pseudoscalar."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        zero = torch.zeros_like(graph.positions)
        axes: List[Tensor] = []
        for k in range(3):
            pairs = graph.vectors * (ending ** (k + 1)).unsqueeze(1)
            axes.append(zero.index_add(0, graph.centers, pairs))
        return values + torch.linalg.det(torch.stack(axes, 1)).unsqueeze(1)


class CountsAtoms(Tiny):
    """Atoms get more of what later atoms give: the sum is right, the parts are not."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        order = torch.sign(graph.neighbors - graph.centers).to(ending.dtype)
        return values + 0.1 * over_neighbours(graph, ending * order)


class KnowsItsPlace(Tiny):
    """Molecules feel where the origin is."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        free = (~graph.pbc.any(1)).index_select(0, graph.structure).to(ending.dtype)
        place = (0.01 * free * graph.positions.square().sum(1)).unsqueeze(1)
        return values + place * over_neighbours(graph, ending)


class SeesTheBatch(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * (1.0 + 0.01 * graph.structure.to(values.dtype).unsqueeze(1))


class Charged(Tiny):
    """Sound, and takes a charge."""

    @torch.jit.ignore
    def extra_inputs(self) -> Dict[str, ExtraInput]:
        return {"charge": STANDARD["charge"]}

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        charges = graph.extras["charge"].index_select(0, graph.structure)
        return values * (1.0 + 0.1 * charges) + charges


class DeafToTheCharge(Charged):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values


class TakesItForNeutral(Charged):
    """Where nothing is said of the charge."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        charges = torch.zeros_like(values[:, :1])
        if "charge" in graph.extras:
            charges = graph.extras["charge"].index_select(0, graph.structure)
        return values * (1.0 + 0.1 * charges)


class WrongForces(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values + 0.1 * over_neighbours(graph, ending.detach())


class OnlyOnce(Tiny):
    """Forces are right, and no derivative of theirs is told that a part of them changes."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        held = ending.detach()
        return values + over_neighbours(graph, 2.0 * held * ending - held.square())


class Silent(Tiny):
    """The same, but where second derivatives are asked for."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.plain = False

    @torch.jit.ignore
    def keep_second_derivatives(self) -> None:
        self.plain = True

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        held = ending if self.plain else ending.detach()
        return values + over_neighbours(graph, 2.0 * held * ending - held.square())


class Refuses(Tiny):
    @torch.jit.ignore
    def keep_second_derivatives(self) -> None:
        raise TargetError("its table is of straight lines")


class WrongTrainingGradients(Tiny):
    def of_center(self, graph: AtomGraph) -> Tensor:
        return self.embedding.weight.detach().index_select(0, graph.types)


class ShortSighted(Tiny):
    """Says that it sees less far than it does."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.interaction_range = 1.0


class NoImages(Tiny):
    """Takes no atom for its own neighbour."""

    def features(self, graph: AtomGraph, x: Tensor, ending: Tensor, around: Tensor) -> Tensor:
        other = (graph.centers != graph.neighbors).to(ending.dtype)
        parts: List[Tensor] = []
        for k in range(4):
            pairs = (ending * other * torch.cos(k * x)).unsqueeze(1) * around
            zero = torch.zeros(
                [graph.types.shape[0], around.shape[1]],
                dtype=around.dtype,
                device=around.device,
            )
            parts.append(zero.index_add(0, graph.centers, pairs))
        return torch.cat(parts, 1)


class Lonely(Tiny):
    """Divides by the number of neighbours."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        around = over_neighbours(graph, ending)
        return values + 0.1 * over_neighbours(graph, ending.square()) / around


class WrongConstants(Tiny):
    """Finds other numbers in the extras than it would compute."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        if "tiny/some" in graph.extras:
            return values + 1.01 * graph.extras["tiny/some"]
        return values + 0.01 * graph.types.to(values.dtype).unsqueeze(1)

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        some = 0.01 * graph.types.to(graph.positions.dtype).unsqueeze(1)
        return Constants(per_atom={"tiny/some": some})


class SinglePrecision(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        zero = torch.zeros([values.shape[0]])
        return values + 0.01 * zero.index_add(0, graph.centers, ending).unsqueeze(1)


class LeavesBehind(Tiny):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.table = torch.ones(1)


class Unscriptable(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * float(np.cos(0.0))


class Unpicklable(Tiny):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.helper = lambda: None


class WrongShape(Tiny):
    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values[:, 0]


class Forgetful(Tiny):
    """Decides something when it is built that no checkpoint holds."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.decided = float(torch.rand(1))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return values * (1.0 + self.decided)


class CannotLearn(Tiny):
    """Its weights hardly count."""

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        return 1e-4 * values + over_neighbours(graph, ending**2)


class ForgetsHeads(Tiny):
    """Starts every head anew when there is a new target."""

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        dtype = self.embedding.weight.dtype
        for name, target in dataset_info.targets.items():
            self.heads[name] = Head(target).to(dtype)


class ForgetsWhatItLearnt(Tiny):
    """Starts anew when there is a new element."""

    @torch.jit.ignore
    def grow(self, trained: Model, growth: Growth) -> None:
        pass


class CannotLearnElements(Tiny):
    """All that comes with an element is a number that is not trained."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.of_element = nn.Parameter(torch.ones(len(dataset_info.atomic_types)))

    def of_center(self, graph: AtomGraph) -> Tensor:
        return self.embedding(graph.types) + 0.0 * self.of_element.sum()


class NewElementsStartAtZero(Tiny):
    """What is learnt of an element begins with nothing, as in a linear model. Without a fault."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.register_buffer("types", torch.tensor(dataset_info.atomic_types))
        self.of_element = nn.Parameter(torch.zeros(len(dataset_info.atomic_types)))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        index = torch.searchsorted(self.types, graph.types)
        return values * self.of_element.index_select(0, index).unsqueeze(1)


class ZerosInFloat32(Tiny):
    """Untrained it says zero, in the precision that torch gives it. Without a fault."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.strength = nn.Parameter(torch.zeros(1))

    def finish(self, graph: AtomGraph, values: Tensor, ending: Tensor) -> Tensor:
        if not bool(self.strength.detach().any()):
            return torch.zeros(values.shape)
        return values * self.strength


class Level1Scalars(FeatureModel):
    """Describes atoms by scalars, and leaves every target to the core."""

    def __init__(self, dataset_info: DatasetInfo, degrees: Optional[Dict[int, int]] = None) -> None:
        super().__init__(dataset_info, 12, degrees)
        self.cutoff = CUTOFF
        self.interaction_range = CUTOFF
        self.embedding = nn.Embedding(120, 4)

    def around(self, graph: AtomGraph) -> Tensor:
        x = torch.linalg.vector_norm(graph.vectors, dim=1) / self.cutoff
        ending = ((1.0 - x.square()).clamp(min=0.0) ** 3).unsqueeze(1)
        around = self.embedding(graph.types.index_select(0, graph.neighbors)) * ending
        return torch.cat([around, around * x.unsqueeze(1)], 1)

    def features(self, graph: AtomGraph) -> Tensor:
        around = self.around(graph)
        zero = around.new_zeros([graph.types.shape[0], 8])
        invariant = zero.index_add(0, graph.centers, around)
        return torch.cat([self.embedding(graph.types), invariant], 1)


class Level1(Level1Scalars):
    """Describes them by vectors, too."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info, {1: 4})

    def encode(self, graph: AtomGraph) -> Tuple[Tensor, Dict[int, Tensor]]:
        around = self.around(graph)[:, :4].unsqueeze(1)
        turned = graph.vectors.roll(2, 1).unsqueeze(2) * around  # y, z, x
        zero = turned.new_zeros([graph.types.shape[0], 3, 4])
        return self.features(graph), {1: zero.index_add(0, graph.centers, turned)}


class WrongLastLayer(Level1):
    """Has other weights than it says."""

    def last_layer_weights(self, target: str) -> Tensor:
        return 2.0 * super().last_layer_weights(target)


class Deaf(nn.Module):
    """An exported model that does not hear which atoms are selected."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def requested_neighbor_lists(self) -> List[NeighborListOptions]:
        return self.inner.requested_neighbor_lists()

    def forward(
        self,
        systems: List[System],
        outputs: Dict[str, ModelOutput],
        selected_atoms: Optional[Labels],
    ) -> Dict[str, TensorMap]:
        return self.inner(systems, outputs, None)


def deaf(model: AtomisticModel) -> AtomisticModel:
    """The same exported model, deaf."""
    return AtomisticModel(Deaf(model.module).eval(), model.metadata(), model.capabilities())
