"""report.html: of trainings, runs, checkpoints and exported models; what it says is what was computed."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from helpers.alloy import crystal, options

from atomtrain import api
from atomtrain.errors import AtomtrainError, CheckpointError, DataError, OptionsError, OutputError
from atomtrain.training.evaluate import compared
from atomtrain.training.units import quantities
from atomtrain_report import report, subject
from atomtrain_report.curves import history
from atomtrain_report.page import MOST_BYTES

SPOILED = 7
"""a frame whose energy is wrong"""


class Page(HTMLParser):
    """What a page consists of: tags with their attributes, and its words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style") and data.strip():
            self.words.append(" ".join(data.split()))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def after(self, words: str) -> str:
        return self.words[self.words.index(words) + 1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, api.TrainingResult]:
    """A training of a second on crystals with stress and classes, and its folder."""
    folder = tmp_path_factory.mktemp("reported")
    frames = [crystal(seed) for seed in range(20)]
    for k, atoms in enumerate(frames):
        atoms.info |= {"phase": ["fcc", "other"][k % 2], "config_type": ["bulk", "strained"][k % 2]}
    frames[SPOILED].calc.results["energy"] += 20.0
    ase.io.write(folder / "crystal.xyz", frames, format="extxyz")
    given = options(test_set=0.0, final_eval={"report": {"by": "config_type"}})
    given["architecture"]["training"]["num_epochs"] = 2
    given["training_set"]["targets"]["mtt::phase"] = {"key": "phase", "type": "classes"}
    (folder / "options.yaml").write_text(yaml.safe_dump(given))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = api.train("options.yaml")
    return folder, result


@pytest.fixture
def run(trained: tuple[Path, api.TrainingResult], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, from where it was started."""
    folder, result = trained
    monkeypatch.chdir(folder)
    return result.directory


def test_a_training_ends_with_its_report(run: Path, trained: Any) -> None:
    page, errors = Page(run / "report.html"), trained[1].errors
    assert str(run / "report.html") in (run / "train.log").read_text().splitlines()[-2]
    # the errors are those of the training, set by set
    for part in ("training", "validation"):
        assert part in page.words
        for quantity in quantities(trained[1] and _info(run)):
            found = errors[part][quantity.key]
            if "rmse" in found:
                assert f"{found['rmse'] * quantity.factor:.4g}" in page.words
        assert f"{errors[part]['mtt::phase']['accuracy']:.4g}" in page.words
    # the structure with the wrong label leads the list
    assert page.after("worst atom").startswith("look")
    first = page.words[page.words.index("worst atom") + 2]
    assert first == f"structure {SPOILED} of 'crystal.xyz'"
    # groups of structures and of atoms
    for words in ("By element", "By config_type", "strained", "Cu", "Au"):
        assert words in page.words
    assert "By size" not in page.words and "By file" not in page.words


def _info(run: Path) -> Any:
    from atomtrain.targets import DatasetInfo
    from atomtrain.training.checkpoint import load_checkpoint

    return DatasetInfo.from_dict(load_checkpoint(run / "model.ckpt")["dataset_info"])


def test_a_page_needs_nothing_beside_it(run: Path) -> None:
    page = Page(run / "report.html")
    images = page.of("img")
    assert len(images) > 12
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in images)
    assert all(len(str(image["alt"])) > 10 for image in images)
    assert all(
        str(link["href"]).startswith(("#", "data:"))
        for tag in ("a", "link")
        for link in page.of(tag)
    )
    assert not [script for script in page.of("script") if "src" in script]
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert all(str(link["href"])[1:] in targets for link in page.of("a"))
    assert len(page.text) < 2_500_000
    # every figure is a file as well, and classes have theirs from the core
    names = {path.name for path in (run / "report").iterdir()}
    assert {"parity_stress_validation.png", "errors_forces.png", "learning_loss.png"} <= names
    assert "Copyright (c) 2014, University of Pittsburgh" in page.text


def test_a_run_that_was_interrupted(run: Path, tmp_path: Path) -> None:
    made, copy = Page(run / "report.html"), tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "model.ckpt").unlink()
    told = json.loads((copy / "evaluation.json").read_text())
    (copy / "evaluation.json").write_text(
        json.dumps({**told, "dynamics": {"drift": {"meV": 0.25}}})
    )
    (copy / "dynamics").mkdir()
    (copy / "dynamics" / "curve.png").write_bytes(
        (run / "report" / "learning_loss.png").read_bytes()
    )
    (copy / "film.png").write_bytes(bytes(MOST_BYTES + 1))
    page = Page(report(copy))
    start = made.words.index("of the best weights")
    table = made.words[start : made.words.index("Learning curves", start)]
    assert " ".join(table) in " ".join(page.words)
    # what other evaluations found is remembered by the run
    assert page.after("drift, meV") == "0.25"
    assert "curve" in [image["alt"] for image in page.of("img")]
    assert "film.png" in " ".join(page.words)


def test_models_on_data(run: Path, tmp_path: Path) -> None:
    ase.io.write("more.xyz", ase.io.read("crystal.xyz", "2:6"), format="extxyz")
    by_checkpoint = Page(
        report(run / "model.ckpt", "more.xyz", output=tmp_path / "a.html", structures=3)
    )
    assert any(words.startswith("Of the more.xyz set 3 of 4") for words in by_checkpoint.words)
    energy = {"unit": "eV", "forces": False, "stress": False}
    targets = {"energy": energy, "mtt::phase": {"key": "phase"}}
    Path("eval.yaml").write_text(yaml.safe_dump({"systems": "more.xyz", "targets": targets}))
    exported = Page(
        report(run / "model.pt", "eval.yaml", output=tmp_path / "b.html", by=["config_type"])
    )
    for words in ("RMSE [meV/atom]", "accuracy", "By config_type"):
        assert words in exported.words
    row = exported.words.index("RMSE [meV/atom]")
    assert (
        exported.words[row : row + 2]
        == by_checkpoint.words[by_checkpoint.words.index("RMSE [meV/atom]") :][:2]
    )
    assert (tmp_path / "b" / "confusion_phase.png").is_file()
    ase.io.write("bare.xyz", [Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])], format="extxyz")
    with pytest.raises(
        DataError, match=r"has no 'energy'.*in an eval file .* instead of 'bare.xyz'"
    ):
        report(run / "model.pt", "bare.xyz", output=tmp_path / "c.html")


@pytest.mark.parametrize(
    ("what", "arguments", "error", "message"),
    [
        ("model.pt", {}, OptionsError, "does not know its data: name a file of structures"),
        ("indices", {}, CheckpointError, "is not the folder of a run"),
        ("none.ckpt", {}, CheckpointError, "there is no checkpoint"),
        ("model.ckpt", {"by": ["conf"]}, OptionsError, "no structure has a value 'conf' .*config_type"),
        ("model.ckpt", {"data": "none.xyz"}, AtomtrainError, "none.xyz"),
    ],
)  # fmt: skip
def test_what_cannot_be_reported(
    run: Path, tmp_path: Path, what: str, arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        report(run / what, output=tmp_path / "page.html", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [("crystal.xyz", r"should end in '\.html'"), ("page", r"should end in '\.html'"),
     ("none/page.html", "'none' does not exist"), ("crystal.html", "which is a file")],
)  # fmt: skip
def test_where_no_page_can_be(run: Path, output: str, message: str) -> None:
    """A page does not take the place of the data beside it, and nobody waits for one that cannot be written."""
    Path("crystal").touch()
    before = Path("crystal.xyz").read_bytes()
    with pytest.raises(OutputError, match=message):
        report(run / "none.ckpt", output=output)
    assert Path("crystal.xyz").read_bytes() == before and not Path("page").exists()


def test_a_page_does_not_show_pictures_of_another(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    report(copy, output=copy / "second.html", structures=3)
    images = Page(report(copy, structures=3)).of("img")
    assert (copy / "second" / "learning_loss.png").is_file()
    assert len(images) == len(Page(run / "report.html").of("img"))


def test_predictions_that_are_no_numbers_are_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(*arguments: Any) -> Any:
        found = compared(*arguments)
        found["energy"].predictions[1] = np.nan
        found["energy:stress" if "energy:stress" in found else "energy:strain"].predictions[:] = (
            np.nan
        )
        return found

    monkeypatch.setattr(subject, "compared", spoiled)
    page = Page(report(run / "model.ckpt", "crystal.xyz", output=tmp_path / "a.html", structures=6))
    said = [words for words in page.words if "no finite number" in words]
    assert len(said) == 2
    assert re.match(
        r"energy of 1 of 6 structures of the crystal.xyz set .*is structure \d+ of 'crystal.xyz'",
        said[0],
    )
    assert said[1].startswith("stress of 6 of 6 structures")


def test_options_of_the_report(run: Path) -> None:
    given = yaml.safe_load(Path("options.yaml").read_text())
    for asked, message in (({"structures": 0}, "at least 1"), ({"structure": 5}, "'structure'")):
        with pytest.raises(OptionsError, match=rf"final_eval\.report: .*{message}"):
            api.train({**given, "final_eval": {"report": asked}})


def test_histories(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        'epoch,stage,training loss,validation loss,seconds\n,"rows, 3 batches",,,1.5\n'
        "0,ridge 0.1,2,3,0.5\n1,ridge 0.01,1,,0.25\n"
    )
    found = history(path, [])
    assert found is not None and found.stages == ["ridge 0.1", "ridge 0.01"]
    assert found.passes == [("rows, 3 batches", 1.5)] and found.seconds == 0.75
    (loss,) = found.curves
    assert loss.values["training"].tolist() == [2.0, 1.0]
    assert np.isnan(loss.values["validation"][1])
    path.write_text("epoch,training loss\n")
    assert history(path, []) is None and history(tmp_path / "none.csv", []) is None


def test_the_viewer_is_the_one_whose_licence_is_there() -> None:
    import atomtrain_report

    vendor = Path(atomtrain_report.__file__).parent / "vendor"
    code = (vendor / "3Dmol-min.js").read_text(encoding="utf-8")
    # it is put into pages as it is
    assert "</script" not in code and "<!--" not in code
    assert re.search(r"BSD-3-Clause", (vendor / "3Dmol-LICENSE.txt").read_text(encoding="utf-8"))
