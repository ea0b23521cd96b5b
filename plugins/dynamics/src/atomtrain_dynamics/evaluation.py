"""``final_eval: {dynamics: ...}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.errors import OptionsError
from atomtrain.runs import Findings
from atomtrain.sections import Source, validate
from atomtrain_dynamics.settings import Settings, check_variant

if TYPE_CHECKING:
    from atomtrain.options import Options
    from atomtrain.runs import Finished


class DynamicsEvaluation:
    """Dynamics with the exported model, from frames of the test set (or the validation set, or the training set).

    ``arguments`` are those of :class:`~atomtrain_dynamics.settings.Settings`; raises OptionsError for others.
    """

    def __init__(self, **arguments: Any) -> None:
        self.settings = validate(Settings, arguments, (), Source(what="arguments"))

    def check(self, options: Options) -> None:
        """Raise OptionsError where the training will have no energy that engines find, or not this one."""
        names = {name for section in options.training_set for name in section.targets}
        if options.architecture.training.get("finetune"):
            return  # the model brings targets of its own
        energies = sorted(name for name in names if name.split("/")[0] == "energy")
        if not energies:
            raise OptionsError(
                f"dynamics need a target 'energy'; the training set has {', '.join(sorted(names)) or 'none'}"
            )
        check_variant(energies, self.settings.variant, "the training set")

    def __call__(self, finished: Finished) -> Findings:
        """Make them; ``dynamics.png`` goes to the run's folder."""
        from atomtrain_dynamics.check import check, open_model, to_plain
        from atomtrain_dynamics.structures import of_sets

        run, settings = finished.run, self.settings
        if settings.seed is None:
            settings = settings.model_copy(update={"seed": run.seed})
        _, model = open_model(
            run.directory / "model.pt", settings.variant, device=str(run.device.type)
        )
        seen, starts, name = of_sets(finished.data)
        found = check(model, settings, seen, starts, name=f"from the {name} set")
        picture = found.picture(run.directory / "dynamics.png")
        values = to_plain({"set": name, **found.values()})
        return Findings(found.lines(), [picture], values)
