"""What the command line does, as functions: ``train``, ``convert``, ``evaluate``, ``export``, ``load``, ``show``.

Whatever a user can get wrong raises an :class:`~atomtrain.errors.AtomtrainError` whose message the
command line prints.
"""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from metatomic.torch import AtomisticModel
from rich.console import Console

from atomtrain.data.convert import Converted, convert_options, reading_of
from atomtrain.errors import CheckpointError, OutputError, PluginError, VerificationError
from atomtrain.evaluation import Evaluation, evaluate_model, structures_of
from atomtrain.files import archive_kind
from atomtrain.model import Predictor
from atomtrain.model.export import (
    describe_checkpoint,
    load_model,
    merge_metadata,
    read_metadata,
    save_model,
    with_second_derivatives,
)
from atomtrain.options import check_units, load_eval_options, load_options
from atomtrain.plugins import architecture_of
from atomtrain.plugins.restore import restore
from atomtrain.report.console import ConsoleObserver, CsvObserver, logging_to
from atomtrain.report.conversion import converting
from atomtrain.report.show import describe, describe_model, differing
from atomtrain.runs import (
    Forecast,
    TrainingResult,
    finish,
    forecast,
    plan,
    prepare,
    together,
    workplace,
)
from atomtrain.runs.directory import check_writable, checkpoint_of, deliver
from atomtrain.runs.evaluations import evaluation_of
from atomtrain.runs.heads import one_head
from atomtrain.sections import defaults_of
from atomtrain.targets import hessian_name
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain.training.fetch import fetched, file_name
from atomtrain.verification import report, save_verified
from atomtrain.verification import verify as verify_file

log = logging.getLogger("atomtrain")
OUTPUTS = Path("outputs")


def train(
    options: str | Path | Mapping[str, Any],
    *,
    output: str | Path = "model.pt",
    extensions: str | Path | None = None,
    overrides: Sequence[str] = (),
    restart: str | Path | None = None,
) -> TrainingResult:
    """Train what an options file (or a dictionary of the same keys) describes.

    Writes ``output`` (the exported model) and the checkpoint beside it, and everything else into
    ``outputs/<date>/<time>/``. ``restart`` is a checkpoint to go on from, or ``auto``. Raises an
    AtomtrainError before any training for whatever is wrong with options, data or machine.
    """
    output = _model_name(output)
    with together(options, overrides) as processes:
        planned = plan(options, overrides)
        check_writable(output)
        with workplace(planned, OUTPUTS, processes) as place:
            prepared = prepare(planned, place, restart)
            run = prepared.run
            watching = ConsoleObserver(run.dataset_info, place.console, run.hypers)
            run.observers[:0] = [
                watching,
                CsvObserver(place.directory / "train.csv", run.dataset_info, run.hypers),
            ]
            with closing(watching):
                outcome = prepared.train()
            return finish(prepared, outcome, output, extensions)


def dry_run(
    options: str | Path | Mapping[str, Any],
    *,
    output: str | Path = "model.pt",
    overrides: Sequence[str] = (),
    restart: str | Path | None = None,
) -> Forecast:
    """Do what :func:`train` would do until its first step and validation, and say what a training would take.

    A step is taken on the largest batch and on one of middle size. Nothing is left behind, and a training afterwards
    is what it would have been. The log says parameters, memory, times and files; what is returned has the same
    numbers. Raises whatever :func:`train` would raise until then, and what its export would. With several processes
    each tries its share, and the first one's figures are given.
    """
    began, output = time.monotonic(), _model_name(output)
    with together(options, overrides) as processes:
        planned = plan(options, overrides)
        check_writable(output)
        with workplace(planned, OUTPUTS, processes, passing=True) as place:
            found = forecast(prepare(planned, place, restart), output, OUTPUTS, began)
            log.info("a dry run: nothing was trained or written; a training")
            for line in found.lines():
                log.info(f"  {line}")
            return found


def convert(
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    reader: str | None = None,
    format: str = "",
    types: Sequence[str] = (),
    length_unit: str = "angstrom",
    unconverged: str = "refuse",
) -> list[Converted]:
    """Write structures, with all the values they have, as a data set on disk in the folder ``output``.

    ``files`` are one or several, with wildcards; ``reader``, ``format``, ``types`` (``1=Cu``), ``length_unit`` and
    ``unconverged`` are as in the options. Or they are one options file: then each of the files that its sections
    name becomes a data set in ``output``, beside ``options.yaml`` that reads these. Raises DataError, OptionsError
    or OutputError.
    """
    given = [str(files)] if isinstance(files, (str, Path)) else [str(file) for file in files]
    with logging_to(None, Console()):
        if len(given) == 1 and Path(given[0]).suffix in (".yaml", ".yml"):
            return convert_options(load_options(given[0]), Path(output), converting)
        reading = reading_of(format, types, unconverged)
        unit = length_unit
        done = converting(given, Path(output), reader=reader, reading=reading, length_unit=unit)
        return [done]


def evaluate(
    model: str | Path,
    options: str | Path | Mapping[str, Any] | list[Any],
    *,
    output: str | Path | None = "output.xyz",
    batch_size: int = 1,
    extensions: str | Path | None = None,
    check_consistency: bool = False,
    warm_up: bool = True,
) -> list[Evaluation]:
    """Run an exported model on the structures of an eval file (or what one would hold).

    Writes predictions to ``output`` (``output_0.xyz``, ... for several sections; None: nowhere), in
    the format of its extension (``.xyz``, ``.xyz.gz``, ``.traj``, ``.db``, ``.json``, ``.mts``,
    ``.zip``; a name without one, or a text that ends in a slash, is a folder of arrays), and logs
    errors for the targets the file has. ``warm_up``: the model is called before times are taken, since
    TorchScript compiles in its first calls. Gives one result per section.
    """
    with logging_to(None, Console()):
        sections = load_eval_options(options)
        check_units(sections)
        return evaluate_model(
            Path(model),
            sections,
            output,
            batch_size=batch_size,
            extensions=extensions,
            check_consistency=check_consistency,
            warm_up=warm_up,
        )


def verify(
    path: str | Path,
    options: str | Path | Mapping[str, Any] | list[Any] | None = None,
    *,
    extensions: str | Path | None = None,
) -> None:
    """Try an exported model from anywhere, or what ``export`` makes of a checkpoint, on a few structures.

    They are those of an eval file, of a file of structures, or made up. Calls of different size must agree (with the
    trained model, where that is known), energies of atoms must sum to totals, and forces and stress must be derivatives
    of the energy. The log says so; raises VerificationError for what is wrong.
    """
    path = Path(path)
    with logging_to(None, Console()):
        if isinstance(options, (str, Path)) and Path(options).suffix not in (".yaml", ".yml"):
            options = {"systems": str(options)}
        sections = [None] if options is None else load_eval_options(options)
        check_units([section for section in sections if section is not None])
        wrong: list[str] = []
        for section in sections:
            file, predictor = _file_of(path, extensions)
            structures, length_unit = None, None
            if section is not None:
                structures = structures_of(file, section)
                length_unit = section.systems.length_unit
            found = verify_file(file, structures, predictor, length_unit=length_unit)
            report(found, path)
            wrong += found.wrong
        if wrong:
            what = "the export of" if path.suffix == ".ckpt" else ""
            remedy = (
                "report it to the authors of the architecture"
                if what
                else "export its checkpoint anew"
            )
            raise VerificationError(
                f"{what} '{path}' is wrong: {'; '.join(dict.fromkeys(wrong))}. Do not use it; {remedy}".strip()
            )


def export(  # noqa: PLR0913
    checkpoint: str | Path,
    *,
    file: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    output: str | Path | None = None,
    metadata: str | Path | None = None,
    extensions: str | Path | None = None,
    second_derivatives: bool = False,
    hessian: bool = False,
    head: str | None = None,
) -> Path:
    """Export a checkpoint as a metatomic model.

    ``checkpoint`` is a path or an address; with ``file`` a repository on the Hugging Face hub that has this file
    (``revision``: a branch, tag or commit; ``token``: for private ones). ``output`` ending in ``.ckpt`` writes a
    checkpoint with the ``metadata`` (a YAML file) in it. A model that is exported already is opened and copied.
    ``head``: one target alone, such as ``energy/pbe``, under its name without variant.

    Autograd can differentiate a model twice that is exported with ``second_derivatives``; such a one is slower. With
    ``hessian`` it also offers the Hessian of each energy, ``atomtrain::energy_hessian``.
    """
    derivatives = ("hessian" if hessian else "second") if hessian or second_derivatives else ""
    with logging_to(None, Console()):
        remote = file is not None or "://" in str(checkpoint)
        named = Path(file_name(checkpoint, file)) if remote else Path(checkpoint)
        output = named.with_suffix(".pt") if output is None else _with_extension(Path(output))
        user = read_metadata(metadata) if metadata is not None else {}
        if head is not None and output.suffix == ".ckpt":
            raise OutputError("--head is for models: a checkpoint (.ckpt) has all heads")
        with fetched(checkpoint, file, revision=revision, token=token) as path:
            if archive_kind(path) == "model":
                if derivatives:
                    raise CheckpointError(
                        f"'{path}' is an exported model, which has the derivatives it has: export the '.ckpt' file "
                        "written beside it with them"
                    )
                if head is not None:
                    raise OutputError(
                        f"--head: '{named}' is exported already; give the checkpoint beside it"
                    )
                _copy_model(path, output, user, extensions)
            else:
                state = load_checkpoint(path)
                _export_checkpoint(state, output, user, extensions, derivatives, head)
        log.info(f"written: {output}")
        return output


def load(path: str | Path, *, extensions: str | Path | None = None) -> AtomisticModel:
    """The metatomic model of a checkpoint (exported in memory) or of an exported model."""
    path = Path(path)
    if path.suffix == ".ckpt":
        return _exported(load_checkpoint(path), {})[0]
    return load_model(path, extensions=extensions)


def show(path: str | Path, *, extensions: str | Path | None = None) -> dict[str, Any]:
    """What a checkpoint, an exported model or a run is: plain data, the same keys for all.

    Of a run's folder also its ``errors`` by set and the ``findings`` of evaluations.
    """
    path = Path(path)
    if path.is_dir():
        told = evaluation_of(path)
        described = {**show(checkpoint_of(path), extensions=extensions), "what": "run"}
        described["errors"] = told.pop("errors", {})
        return {**described, "findings": told}
    try:
        described = describe(load_checkpoint(path), "checkpoint")
    except CheckpointError as error:
        if "exported model" not in str(error):
            raise
        described = describe_model(load_model(path, extensions=extensions))
    if described.get("architecture"):
        described.update(_today(described))
    return described


# -- pieces --------------------------------------------------------------------------------------


def _model_name(output: str | Path) -> Path:
    """The path of a model to be written; OutputError where it has the name of something else."""
    output = _with_extension(Path(output))
    if output.suffix != ".pt":
        raise OutputError(f"'{output}' should end in '.pt': it will be an exported model")
    return output


def _with_extension(output: Path) -> Path:
    """A name that says what it is of: ``.pt`` is added where it ends in nothing known."""
    if output.suffix in (".pt", ".ckpt"):
        return output
    named = output.with_name(f"{output.name}.pt")
    log.warning(f"'{output}' does not end in '.pt', as exported models do: writing '{named}'")
    return named


def _export_checkpoint(
    state: dict[str, Any],
    output: Path,
    user: Mapping[str, Any],
    extensions: str | Path | None,
    derivatives: str,
    head: str | None,
) -> None:
    """Write a checkpoint as a model, or, with the ``user``'s metadata, as a checkpoint.

    ``derivatives``: ``second`` or ``hessian`` where the model is to have them.
    """
    check_writable(output)
    if output.suffix == ".ckpt":
        if derivatives:
            raise OutputError(
                f"'{output}' will be a checkpoint, which has no derivatives: name a model (.pt)"
            )
        state["metadata"] = merge_metadata(state.get("metadata") or {}, user)
        save_checkpoint(state, output)
    else:
        model, predictor = _exported(state, user, derivatives, head)
        save_verified(model, output, predictor, extensions=extensions)


def _copy_model(
    model: Path, output: Path, user: Mapping[str, Any], extensions: str | Path | None
) -> None:
    """Copy an exported model, which must open: it may have come from afar."""
    if user or output.suffix == ".ckpt":
        raise CheckpointError(
            f"'{model}' is an exported model, from which neither a checkpoint nor a model with other metadata can "
            "be made: export the '.ckpt' file written beside it"
        )
    if output.exists() and output.samefile(model):
        raise OutputError(f"'{output}' is an exported model already; name a copy with -o")
    check_writable(output)
    load_model(model, extensions=extensions)
    deliver(model, output)


def _exported(
    state: dict[str, Any], user: Mapping[str, Any], derivatives: str = "", head: str | None = None
) -> tuple[AtomisticModel, Predictor]:
    """The exported model of a checkpoint, with the ``user``'s metadata, and what it was made of."""
    restored = restore(state, "export")
    if head is not None:
        restored = one_head(restored, head)
    architecture = restored.architecture
    if architecture.notice is not None:
        log.warning(architecture.notice)
    described = describe_checkpoint(restored.checkpoint, architecture.info, user)
    predictor = copy.deepcopy(restored.predictor)
    if derivatives:
        predictor = with_second_derivatives(predictor, hessian=derivatives == "hessian")
    model: AtomisticModel = architecture.export_model(predictor, described)
    lacking = {hessian_name(name) for name in predictor.hessians} - set(
        model.capabilities().outputs
    )
    if lacking:
        raise PluginError(
            f"'{architecture.info.name}' exports its models itself, without {', '.join(sorted(lacking))}: ask its "
            "authors for it"
        )
    return model, restored.predictor


def _file_of(path: Path, extensions: str | Path | None) -> tuple[AtomisticModel, Predictor | None]:
    """The model in a file, or as it comes back from one; of a checkpoint with what it was made of."""
    if path.suffix != ".ckpt":
        return load_model(path, extensions=extensions), None
    model, predictor = _exported(load_checkpoint(path), {})
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.pt"
        foreign = save_model(model, written, extensions=extensions)
        return load_model(written, extensions=extensions if foreign else None), predictor


def _today(described: Mapping[str, Any]) -> dict[str, Any]:
    """What is known today of the architecture of a file: version, stage, or how to get it.

    With it the hypers that differ from today's defaults, if the architecture is the same.
    """
    try:
        architecture = architecture_of(described)
    except PluginError as error:
        return {"installed": {"problem": str(error)}}
    known = {"version": architecture.installed.version, "stage": architecture.info.stage}
    if architecture.notice:
        known["notice"] = architecture.notice
    hypers = described.get("hypers") or {}
    classes = {
        "model": architecture.model_hypers_class(),
        "trainer": architecture.trainer_hypers_class(),
    }
    changed = {
        part: differing(hypers[part], defaults_of(cls))
        for part, cls in classes.items()
        if part in hypers
    }
    return {"installed": known, "changed_hypers": changed}
