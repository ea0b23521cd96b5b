"""From the first epoch to a checkpoint years later: fitting, restarting, fine-tuning, upgrading."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomtrain.errors import CheckpointError, DataError, OptionsError, TargetError
from atomtrain.model import Predictor
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.judge import not_finite
from atomtrain_testing import structures
from atomtrain_testing.checks import (
    ConformanceError,
    NotApplicable,
    check,
    expect_equal,
    require,
)
from atomtrain_testing.examples import ENERGY, ENERGY_ALONE, Example
from atomtrain_testing.golden import check_golden, golden_files
from atomtrain_testing.predictions import graph_of
from atomtrain_testing.subject import Subject, launched
from atomtrain_testing.training import (
    LENGTH,
    loss_of_nothing,
    options,
    train,
    trained,
    validated,
)

SOLVED = 1e-5
"""how well two solutions of the same equations agree"""


@check("builds")
def trains(subject: Subject) -> None:
    """A training ends with finite weights that validation chose, and observers hear of it.

    Every epoch or stage is told to observers (``session.validated`` does), weights are finite, and the best
    weights are those that were validated: validated once more they give the loss that observers were told. A
    ``train_model`` of your own returns ``session.outcome()``; where what it returns cannot be trusted the core
    says why.
    """
    done = trained(subject)
    who = "train_model" if subject.trains_itself else "the training"
    stages = done.heard.stages
    require(
        bool(stages),
        f"no observer heard of what {who} does: session.validated tells run.observers, and keeps the best weights",
    )
    for kind, weights in (("last", done.weights), ("best", done.outcome.best_weights)):
        sick = not_finite(weights)
        require(not sick, f"{who} ends with {kind} weights that are not finite: {sick}")
    told = [record.validation_loss for record in stages if record.is_best][-1:]
    found = validated(done)
    require(
        bool(told) and abs(found - told[0]) <= 1e-3 * abs(told[0]) + 1e-9,
        f"the best weights of {who} have a validation loss of {found:.4g}, observers were told "
        f"{f'{told[0]:.4g}' if told else 'of none'}: copy weights into the model, then call session.validated",
    )


@check("trains")
def fits(subject: Subject) -> None:
    """Training on one batch of four structures brings the loss to near zero.

    Training on one batch of four structures brings the loss down to two percent (``fit_ratio``) within 300 epochs
    (``fit_epochs``). A model that cannot do that has weights that gradients do not reach, or too few. The learning
    rate is 0.01 unless ``training_hypers`` has one. A trainer that has no epochs trains once, and its best stage
    leaves that part of the loss that there is where the model says nothing.
    """
    example = ENERGY_ALONE if subject.main is ENERGY else subject.main
    given: dict[str, Any] = {"n": 4, "batch_size": 4, "num_epochs": subject.fit_epochs}
    if "learning_rate" not in subject.training_hypers:
        given["learning_rate"] = 0.01
    done = train(subject, [example], **given)
    by_epochs = subject.has_hyper("num_epochs")
    first = done.losses[0] if by_epochs else loss_of_nothing(done)
    left = min(done.losses) / max(first, 1e-12)
    found = (
        f"{left:.1%} of the loss is left ({first:.3g} {{}}, {min(done.losses):.3g} at best; allowed: "
        f"{subject.fit_ratio:.1%})"
    )
    if by_epochs:
        message = f"after {len(done.losses)} epochs {found.format('at first')}. "
        more = "raise fit_epochs, or learning_rate in training_hypers"
        hint = (
            f"Do gradients reach the weights? Else {more}"
            if done.heard.n_steps
            else (f"Does train_model copy what it finds into the model? Else {more}")
        )
    else:
        message = f"after train_model {found.format('of a model that says nothing')}. "
        hint = (
            "Does it copy what it finds into the model before session.validated? Else give training_hypers with "
            "which four structures can be explained (a weaker ridge, for instance)"
        )
    require(left <= subject.fit_ratio, message + hint)


@check("trains")
def target_kinds(subject: Subject) -> None:
    """Every declared kind of target builds, trains, and has the shapes of its layout.

    Every kind of target in ``target_kinds`` builds, has the shapes of its layout, and trains for two epochs with
    finite losses and moving weights. One example of each kind has to be taken; others (several scalars, one per
    atom, matrices, tensors of degrees that the model does not have) may be refused with a ``TargetError`` that says
    so.
    """
    for kind in subject.kinds:
        refused: list[str] = []
        examples = subject.examples_of(kind)
        for example in examples:
            name = f"kind '{kind}', target '{example.name}'"
            try:
                info = subject.info(example)
                model = subject.build(info).eval()
            except TargetError as error:
                refused.append(f"{name} is refused though it is declared: {error}")
                require(len(refused) < len(examples), "; ".join(refused))
                continue
            molecule = structures.some_molecule(subject.atomic_types)
            graph = graph_of(model, [molecule], subject.dtype)
            found = model.to(subject.dtype)(graph, [example.name])[example.name]
            shapes = [tuple(b.shape[1:]) for b in found]
            wanted = [b.shape for b in info.targets[example.name].blocks]
            require(shapes == wanted, f"{name}: shapes {shapes} instead of {wanted} for an atom")
            done = train(subject, [example], num_epochs=2)
            require(
                all(torch.isfinite(torch.tensor(done.losses))),
                f"{name}: the loss is {done.losses}",
            )
            require(
                any(bool((done.weights[n] != w).any()) for n, w in done.start.items()),
                f"{name}: training leaves every weight as it was",
            )


@check("target_kinds")
def core_heads(subject: Subject) -> None:
    """Classes and other targets the architecture does not know get heads of the core.

    A model that offers ``feature`` (``Model.feature_outputs``) gets heads of the core for the kinds of targets it
    does not declare: a classification trains on it, and its checkpoint gives the same model. Skipped where there is
    no ``feature``.
    """
    model = subject.build()
    if "feature" not in model.feature_outputs():
        raise NotApplicable(
            "the model offers no output 'feature' (Model.feature_outputs), on which the core's heads "
            "work"
        )
    width = model.feature_outputs()["feature"]
    molecule = structures.some_molecule(subject.atomic_types)
    graph = graph_of(model, [molecule], subject.dtype)
    found = model.to(subject.dtype)(graph, ["feature"])
    require(
        "feature" in found and tuple(found["feature"][0].shape) == (len(molecule), width),
        f"'feature' must be one block of shape {(len(molecule), width)} (atoms, width)",
    )
    others = [kind for kind in ("classes", "scalar") if kind not in subject.kinds]
    if not others:
        raise NotApplicable("the architecture declares the kinds that are looked at here")
    example = subject.examples_of(others[0])[-1]
    try:
        done = train(subject, [example], num_epochs=2)
    except (OptionsError, TargetError) as error:
        if not subject.trains_itself:
            raise
        raise NotApplicable(f"its training takes no other targets: {error}") from error
    require(
        bool(torch.isfinite(torch.tensor(done.losses)).all()),
        f"the loss of '{example.name}' is {done.losses}",
    )
    again = restore(load_checkpoint(done.checkpoint), "export").predictor
    values = _values(again, molecule)[example.name]
    require(bool(torch.isfinite(values).all()), f"'{example.name}' is not finite")


@check("trains")
def checkpoints(subject: Subject) -> None:
    """A checkpoint that is written and read gives the same model in all three contexts.

    A checkpoint that is written and read gives the same model for ``restart`` (the last weights), ``finetune`` and
    ``export`` (the best ones). What training or building decides belongs in the ``state_dict`` or in the hypers.
    """
    done = trained(subject)
    molecule = structures.some_molecule(subject.atomic_types)
    for purpose, weights in (
        ("restart", done.weights),
        ("finetune", done.outcome.best_weights),
        ("export", done.outcome.best_weights),
    ):
        again = restore(load_checkpoint(done.checkpoint), purpose).predictor  # type: ignore[arg-type]
        done.predictor.model.load_state_dict(weights)
        found, wanted = (_values(p, molecule) for p in (again, done.predictor))
        for name, value in wanted.items():
            expect_equal(
                found[name],
                value,
                1e-12,
                f"'{name}' of the model loaded for {purpose}. Is something that training or "
                "building decided neither in the state_dict nor in the hypers?",
            )
    done.predictor.model.load_state_dict(done.weights)


@check("checkpoints")
def restart(subject: Subject) -> None:
    """A training stopped and restarted ends with the same weights, bit for bit.

    A training stopped after two of four epochs and restarted ends with the same weights, bit for bit on the CPU.
    Indexing with tensors (``x[index]``) is not repeatable in its backward: use ``index_select`` and ``index_add``.
    """
    whole = trained(subject)
    n, word = len(whole.losses), whole.word
    if n < 2:
        raise NotApplicable(
            "its training has one stage: there is nothing to restart from but its end"
        )
    halfway = whole.folder / f"model_{n // 2}.ckpt"
    require(
        halfway.exists(),
        f"train_model wrote no checkpoint after {n // 2} of {n} {word} (checkpoint_interval: 1)",
    )
    resumed = train(subject, [subject.main], restart=halfway, **LENGTH)
    require(
        len(resumed.losses) == n - n // 2,
        f"restarted after {n // 2} of {n} {word}, the training did {len(resumed.losses)} more",
    )
    for name, weight in whole.weights.items():
        require(
            bool(torch.equal(resumed.weights[name], weight)),
            f"'{name}' ends elsewhere after a restart. Is there state that the checkpoint lacks, or "
            "an operation that is not repeatable (indexing with tensors: use index_select)?",
        )


@check("checkpoints")
def finetune(subject: Subject) -> None:
    """Fine-tuning starts from the trained weights, and 'heads' leaves the encoder as it is.

    Fine-tuning starts from the weights of the checkpoint, and ``method: heads`` leaves every weight that is not
    ``Model.is_head`` as it was.
    """
    before = trained(subject)
    best = before.outcome.best_weights
    source = {"read_from": str(before.checkpoint)}
    done = train(subject, [subject.main], finetune=source, num_epochs=1, seed=2)
    for name, weight in best.items():
        require(
            bool(torch.equal(done.start[name].to(weight.dtype), weight)),
            f"'{name}' is not that of the checkpoint when fine-tuning starts",
        )
    model = before.predictor.model
    heads = [n for n, _ in model.named_parameters() if model.is_head(n)]
    if not heads:
        return
    source = {**source, "method": "heads"}
    done = train(subject, [subject.main], finetune=source, num_epochs=1, seed=2)
    for name, parameter in done.predictor.model.named_parameters():
        if name not in done.start:
            continue  # inside a frozen backbone, which brings its own checkpoint
        moved = not torch.equal(parameter.detach(), done.start[name].to(parameter.dtype))
        require(
            not moved or model.is_head(name),
            f"'{name}' was trained with 'method: heads'",
        )


@check("finetune")
def new_targets(subject: Subject) -> None:
    """A trained model takes new targets beside the old ones, or refuses them clearly.

    ``Model.retarget`` adds a target beside those that are trained and leaves these as they are; the new one trains.
    An architecture that cannot do that raises a ``TargetError``, and the check is skipped.
    """
    extra = _second(subject)
    before = trained(subject)
    info = subject.info(subject.main, extra)
    predictor = restore(load_checkpoint(before.checkpoint), "finetune").predictor
    model = predictor.model.eval()
    dtype = next((p.dtype for p in model.parameters()), subject.dtype)
    graph = graph_of(model, [structures.some_molecule(subject.atomic_types)], dtype)
    wanted = model(graph, [subject.main.name])[subject.main.name]
    try:
        model.retarget(info)
    except TargetError as error:
        raise NotApplicable(f"the architecture takes no new targets: {error}") from error
    found = model.eval()(graph, list(info.targets))
    require(extra.name in found, f"after retarget there is no '{extra.name}'")
    for old, new in zip(wanted, found[subject.main.name], strict=True):
        what = f"'{subject.main.name}' after '{extra.name}' was added: retarget must leave what is "
        expect_equal(new, old, 1e-6, what + "trained as it is")
    source = {"read_from": str(before.checkpoint)}
    train(subject, [subject.main, extra], finetune=source, num_epochs=1, seed=2)
    stranger = 118 if 118 not in subject.atomic_types else 117
    data = type(info)(info.length_unit, (*info.atomic_types, stranger), info.targets)
    try:
        model.retarget(data)
    except (DataError, TargetError) as error:
        require(bool(str(error)), "new elements are refused without a message")


@check("finetune")
def new_elements(subject: Subject) -> None:
    """A trained model takes in a new element, learns it, and predicts the old ones as before, or refuses clearly.

    A model that is fine-tuned on data with an element it does not know (``Model.grow``) predicts structures without
    it as before, up to rounding; predictions of the new element have derivatives in the weights that came with it;
    a restart ends with the same weights, bit for bit; the checkpoint is one for all elements. The element is put
    between the known ones, so that their indices move. An architecture that cannot grow raises a ``DataError``, and
    the check is skipped.
    """
    before, main = trained(subject), subject.main.name
    types = subject.atomic_types
    added = next((z for z in range(max(types), 0, -1) if z not in types), max(types) + 1)
    wider = replace(subject, atomic_types=tuple(sorted({*types, added})), outcomes={})
    given: dict[str, Any] = {"num_epochs": 2, "checkpoint_interval": 1, "seed": 2}
    given["finetune"] = {"read_from": str(before.checkpoint)}
    try:
        done = train(wider, [subject.main], **given)
    except DataError as error:
        require(bool(str(error)), "new elements are refused without a message")
        raise NotApplicable(f"the architecture takes in no new elements: {error}") from error
    found = load_checkpoint(done.checkpoint)["dataset_info"]["atomic_types"]
    require(found == list(wider.atomic_types), f"the checkpoint is one for the elements {found}")

    old = restore(load_checkpoint(before.checkpoint), "finetune").predictor.model.double().eval()
    new = done.predictor.model
    new.load_state_dict(done.start)
    new.double().eval()
    for name, frame in structures.neighbourly(types).items():
        one, other = (model(graph_of(model, [frame]), [main])[main] for model in (old, new))
        for block, wanted in zip(other, one, strict=True):
            what = f"{name}, '{main}' after the model took in an element that is not there: Model.grow must "
            expect_equal(block, wanted, 1e-10, what + "leave what is learnt of others as it is")

    alone = structures.some_molecule((added,))
    values = torch.cat([b.flatten() for b in new(graph_of(new, [alone]), [main])[main]])
    sizes = {name: p.numel() for name, p in old.named_parameters()}
    parameters = dict(new.named_parameters())
    grown = [p for name, p in parameters.items() if p.numel() > sizes.get(name, 0)]
    # along a direction, and not of the square, which has no slope where new weights start at zero
    along = torch.linspace(1.0, 2.0, values.numel(), dtype=values.dtype)
    gradients = torch.autograd.grad(
        (values * along).sum(), grown or list(parameters.values()), allow_unused=True
    )
    require(
        any(g is not None and bool((g != 0).any()) for g in gradients),
        "predictions of the new element depend on no weight that came with it",
    )

    again = train(wider, [subject.main], restart=done.folder / "model_1.ckpt", **given)
    for name, weight in done.weights.items():
        require(
            bool(torch.equal(again.weights[name], weight)),
            f"'{name}' ends elsewhere after a restart of a model that took in an element",
        )


@check("trains")
def future_versions(subject: Subject) -> None:
    """A checkpoint of a later version than the plugin's is refused, naming both versions.

    A checkpoint of a later version than the plugin's is refused, naming both versions. The core does that.
    """
    checkpoint = load_checkpoint(trained(subject).checkpoint)
    info = subject.architecture.info
    for part, version in (("model", info.model_version), ("trainer", info.trainer_version)):
        identity = {**checkpoint["architecture"], f"{part}_version": version + 1}
        try:
            restore({**checkpoint, "architecture": identity}, "export")
        except CheckpointError as error:
            require(
                str(version) in str(error) and str(version + 1) in str(error),
                f"version {version + 1} of the {part} is refused without naming both versions",
            )
            continue
        raise ConformanceError(f"a checkpoint of version {version + 1} of the {part} was loaded")


@check("checkpoints")
def golden(subject: Subject) -> None:
    """Checkpoints of every version that was ever released load, predict the same, and go on.

    Small checkpoints of every version that was ever released go on loading for restart (training goes on),
    fine-tuning and export, with the predictions they had. Write one for the current versions of model and trainer
    before each release that raises one of them, and keep it.
    """
    info = subject.architecture.info
    files = golden_files(subject)
    folder = subject.golden or "FOLDER"
    how = f"write one with: atomtrain check {info.name} --hypers ... --write-golden {folder}"
    if not files:
        require(
            info.stage != "stable" or subject.golden is None,
            f"a stable architecture keeps golden checkpoints, '{subject.golden}' has none; {how}",
        )
        none = "no folder of golden checkpoints was given (--golden FOLDER)"
        if subject.golden is not None:
            none = f"'{subject.golden}' has no golden checkpoints yet"
        raise NotApplicable(f"{none}; {how}")
    versions = [check_golden(subject, path) for path in files]
    for part, current, seen in (
        ("model", info.model_version, {model for model, _ in versions}),
        ("trainer", info.trainer_version, {trainer for _, trainer in versions}),
    ):
        for version in range(1, current + 1):
            require(
                version in seen,
                f"no golden checkpoint holds version {version} of the {part} (current: {current}); "
                f"{how}",
            )


@check("batch_independence", "torchscript")
def two_processes(subject: Subject) -> None:
    """Two processes that train together end where one ends.

    Two processes that train together, as ``torchrun`` starts them, end where one ends. The core's engine does that
    for every model whose structures do not depend on their batch; a trainer of your own has to sum loss and
    gradients over ``run.processes``.
    """
    given: dict[str, Any] = {"num_epochs": 2, "base_precision": 64, "n": 5}
    folder = subject.new_folder("two-processes")
    options(subject, folder, [subject.main], **given)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    logs = [folder / f"rank-{rank}.log" for rank in ("0", "1")]
    processes = []
    for rank, log in zip(("0", "1"), logs, strict=True):
        processes.append(launched(folder, log, {**place, "RANK": rank, "LOCAL_RANK": rank}))
    try:
        done = train(subject, [subject.main], **given)  # while they start
        until = time.monotonic() + 300
        while any(p.poll() is None for p in processes) and time.monotonic() < until:
            if any(p.poll() for p in processes):
                break  # the other would wait for it
            time.sleep(0.1)
        ended = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for log, code in zip(logs, ended, strict=True):
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"])[-1]
        require(not code, f"'atomtrain train' failed: {last}")
    require(None not in ended, "two processes were not done after five minutes")
    two = load_checkpoint(folder / "model.ckpt")
    what = "after training by two processes"
    if subject.trains_itself:
        what += (
            " (train_model sums over run.processes what it takes from its share of the structures: "
            "session.batches has an argument 'sums')"
        )
    if done.heard.n_steps:
        for name, weight in done.weights.items():
            if weight.is_floating_point():
                expect_equal(two["model"]["last"][name], weight, 1e-7, f"'{name}' {what}")
        return
    # a solution may have directions that the data say nothing of: rounding moves it along these, and in predictions
    # it is as much larger as the equations are ill-conditioned
    pair = restore(two, "restart").predictor, done.predictor
    molecule = structures.some_molecule(subject.atomic_types)
    found, wanted = (_values(predictor, molecule) for predictor in pair)
    for name, value in wanted.items():
        expect_equal(found[name], value, SOLVED, f"'{name}' predicted {what}")


# -- pieces ----------------------------------------------------------------------------------------


def _values(predictor: Predictor, atoms: Any) -> dict[str, Tensor]:
    """All targets of all atoms, flat, in the precision of the weights."""
    model = predictor.model.eval()
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
    found = predictor(graph_of(model, [atoms], dtype), list(predictor.dataset_info.targets))
    return {n: torch.cat([b.detach().flatten(1) for b in bs], dim=1) for n, bs in found.items()}


def _second(subject: Subject) -> Example:
    """A target beside the main one: the same once more under another name."""
    main = subject.main
    name = "energy/second" if main.name == "energy" else f"{main.name}_second"
    section = {**main.section, "key": main.key, "forces": False, "stress": False}
    if main is not ENERGY:
        section = {**main.section, "key": main.key}
    return Example(name, section, main.label)
