"""What every architecture must be able to do: atomtrain's conformance kit on this one."""

{% if cookiecutter.level == "wrapper" -%}
import tempfile
from pathlib import Path

from atomtrain_testing import ArchitectureTests, Subject, write_golden

BACKBONE = {
    "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
    "bpnn": {"num_neurons_per_layer": 8},
}


class Test{{ cookiecutter.class_name }}(ArchitectureTests):
    architecture = "{{ cookiecutter.name }}"
    model_hypers = {"n_channels": 8}
    folder: "tempfile.TemporaryDirectory[str]"

    @classmethod
    def subject(cls) -> Subject:
        """Built on a small model that is trained when the first test asks for it."""
        if not cls.training_hypers:
            cls.folder = tempfile.TemporaryDirectory()  # gone with the class
            backbone = write_golden(Subject("soap-bpnn", BACKBONE), Path(cls.folder.name))
            cls.training_hypers = {"backbone": str(backbone)}
        return super().subject()
{%- else -%}
from atomtrain_testing import ArchitectureTests


class Test{{ cookiecutter.class_name }}(ArchitectureTests):
    architecture = "{{ cookiecutter.name }}"
    model_hypers = {"cutoff": 4.0, "n_radial": 4, "n_channels": 4}
{%- endif %}
