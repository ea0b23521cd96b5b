from atomtrain.contract import ArchitectureInfo, Person, hookimpl


def model_hypers():
    from atomtrain_moments.hypers import ModelHypers

    return ModelHypers


@hookimpl
def describe_architecture():
    return ArchitectureInfo(
        name="moments",
        summary="distances and directions of neighbours",
        model_hypers=model_hypers,
        maintainers=(Person("Ada Example", email="ada@example.org"),),
    )


@hookimpl
def build_model(hypers, dataset_info):
    from atomtrain_moments.model import Moments

    return Moments(hypers, dataset_info)
