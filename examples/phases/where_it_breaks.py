"""Balanced accuracy of ``model.pt`` on the test set and on structures of ever stronger noise."""

from __future__ import annotations

from pathlib import Path

import atomtrain

if __name__ == "__main__":
    print("noise along each axis (A)   balanced accuracy   mean probability of the answer")
    for path in (Path("test.xyz"), *sorted(Path().glob("noise_*.xyz"))):
        section = {
            "systems": {"read_from": str(path), "length_unit": "angstrom"},
            "targets": {"mtt::phase": {"key": "phase"}},
        }
        (found,) = atomtrain.evaluate("model.pt", section, output=None)
        confidence = found.predictions["mtt::phase"].max(1).values.mean()
        accuracy = found.errors["mtt::phase"]["balanced accuracy"]
        print(f"{path.stem:27} {accuracy:17.3f} {confidence:22.2f}")
