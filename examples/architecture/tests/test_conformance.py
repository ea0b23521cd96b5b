from atomtrain_testing import ArchitectureTests


class TestMoments(ArchitectureTests):
    architecture = "moments"
    model_hypers = {"cutoff": 4.0, "width": 8}
