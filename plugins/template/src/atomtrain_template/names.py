"""What a project can be called, and what there is to choose from."""

from __future__ import annotations

import re

from atomtrain.contract import catalog
from atomtrain.errors import PluginError

LEVELS = {
    "features": "features of atoms; the core makes every target of them",
    "potential": "energies of atoms and nothing else; forces and stress come by themselves",
    "predictions": "all targets by yourself, block by block",
    "trainer": "features, and the steps of the training",
    "fit": "energies linear in their weights, and a training without gradients: ridge regression",
    "wrapper": "on the features of a model that somebody trained",
}
LICENSES = {
    "BSD-3-Clause": "do what you like, keep the notice",
    "MIT": "the same, shorter",
    "Apache-2.0": "the same, with patents",
}


def check_name(name: str) -> None:
    """PluginError for a name that cannot be an architecture's, or is one already."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > 30:
        proposal = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")[:30].strip("-")
        raise PluginError(
            f"'{name}' cannot be the name of an architecture: use at most 30 small letters, digits "
            f"and single hyphens, a letter first"
            + (f", such as '{proposal}'" if proposal and proposal != name else "")
        )
    if name.startswith("atomtrain"):
        raise PluginError(
            f"'{name}': leave out 'atomtrain', the distribution is called atomtrain-<name> anyway"
        )
    there = [one for one in catalog.architectures() if one.name == name]
    if there:
        raise PluginError(
            f"'{name}' is already the name of an installed architecture ({there[0].origin}), and two "
            "of one name cannot be used together: choose another"
        )


def class_name(name: str) -> str:
    """``my-arch`` as the name of a class: ``MyArch``."""
    camel = "".join(part.capitalize() for part in name.split("-"))
    # names that the modules of the template import or define
    taken = {
        "Model",
        "FeatureModel",
        "PotentialModel",
        "Backbone",
        "Tensor",
        "Readout",
        "Descriptor",
    }
    taken |= {"AtomGraph", "DatasetInfo", "TargetInfo", "TargetError", "ModelHypers", "Constants"}
    taken |= {"Dict", "List", "Tuple", "Growth"}
    return f"{camel}Network" if camel in taken else camel
