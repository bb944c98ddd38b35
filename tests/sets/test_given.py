"""Sets as files lie: several as seeds, IDC's factor, zips, ids of the hub; from file to board."""

import csv
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from test_distilled_import import make_dataset

from benchmark.core.errors import DataError, MissingError, UsageError
from benchmark.data import load_dataset
from benchmark.sets.given import each_set, open_set
from benchmark.training.formation import decode


def floats(seed=0, ipc=1):
    """Images of digits as DC would release them: not whole grey levels, some beyond black and white."""
    digits = load_dataset("digits")
    rows = [int(i) for c in digits.train.by_class for i in c[seed * ipc : (seed + 1) * ipc]]
    pixels = (digits.train.images(rows).float() * 1.1 - 5.5) / 255
    return (pixels - digits.mean[0]) / digits.std[0], torch.from_numpy(digits.train.labels[rows].copy())


@pytest.fixture
def evaluate(tmp_path, digits_teacher_store, monkeypatch, capsys):
    """Runs `ddbench evaluate` on digits in this process; gives the records and the rows of the board."""
    from benchmark import cli

    shutil.copytree(digits_teacher_store.root, tmp_path / "store")
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        shutil.rmtree("results", ignore_errors=True)
        common = ("--dataset", "digits", "--protocol", "smoke", "--jobs", "1", "--device", "cpu")
        with pytest.raises(SystemExit) as end:
            cli.main(["evaluate", *map(str, arguments), *common])
        text = capsys.readouterr()
        assert end.value.code == 0, text.out + text.err
        found = [json.loads(f.read_text()) for f in sorted((tmp_path / "results" / "records").glob("*.json"))]
        with open(tmp_path / "results" / "leaderboard.csv") as file:
            return sorted(found, key=lambda r: r["identity"]["seed"]), list(csv.DictReader(file))

    return run


def test_the_sets_in_dcs_file_are_seeds(evaluate, tmp_path):
    torch.save({"data": [[*floats(seed)] for seed in range(3)]}, tmp_path / "res_DC.pt")
    records, board = evaluate("res_DC.pt", "--as", "dc-authors")
    sets = [open_set(tmp_path / f"res_DC.pt#{s}", load_dataset("digits")) for s in range(3)]
    assert [r["identity"]["set"] for r in records] == [s.digest for s in sets]
    assert sets[0].images.dtype == torch.float32 and "floats" in records[0]["artifacts"]["read"]
    assert (tmp_path / "results" / records[0]["artifacts"]["contact_sheet"]).is_file()
    (row,) = board
    assert row["method"] == "dc-authors" and row["seeds"] == "3" and "one-set" not in row["flags"]
    for seed in range(3):
        (tmp_path / "several").mkdir(exist_ok=True)
        torch.save([*floats(seed)], tmp_path / "several" / f"exp{seed}.pt")
    again, _ = evaluate("several", "--as", "dc-authors")  # a folder of sets
    assert [r["id"] for r in again] == [r["id"] for r in records]


def test_a_zip_of_images(evaluate, tmp_path):
    digits = load_dataset("digits")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for label in range(10):
            image = digits.train.pil(int(digits.train.by_class[label][0]))
            image.save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"release/{label}/0.png")
    ((record,), _) = evaluate("set.zip", "--seeds", 1, "--as", "zipped")
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    assert record["identity"]["set"] == open_set(tmp_path / "unpacked", digits).digest
    whole = (tmp_path / "set.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as zip"):
        open_set(tmp_path / "half.zip", digits)
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("../0.png", b"")
    with pytest.raises(DataError, match="it holds the name"):
        open_set(tmp_path / "odd.zip", digits)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(DataError, match="none of its 1 files"):
        open_set(tmp_path / "empty.zip", digits)


def test_idcs_factor(evaluate, tmp_path):
    """IDC saves [images, labels], images in 0..1 whose quarters are the training images."""
    digits = load_dataset("digits")
    rows = [int(i) for c in digits.train.by_class for i in c[:4]]
    quarters = digits.train.images(rows).view(10, 2, 2, 1, 8, 8)[..., ::2, ::2]
    images = quarters.permute(0, 3, 1, 4, 2, 5).reshape(10, 1, 8, 8).float() / 255 + 0.001
    torch.save([images, torch.arange(10)], tmp_path / "data.pt")
    plain = open_set(tmp_path / "data.pt", digits)
    found = open_set(tmp_path / "data.pt", digits, factor=2)
    x, y = found.training()
    assert x.shape == (40, 1, 8, 8) and torch.allclose(x / 255, decode(images, 2), atol=1e-5)
    assert y.tolist() == list(range(10)) * 4 and found.digest != plain.digest and found.ipc == 1
    ((record,), board) = evaluate("data.pt", "--factor", 2, "--seeds", 1, "--as", "idc-authors")
    assert record["identity"]["set"] == found.digest and record["identity"]["method"]["params"] == {"factor": 2}
    assert "decoded to 2x2" in record["artifacts"]["read"] and len(board) == 1
    with pytest.raises(UsageError, match="factor of 9"):
        open_set(tmp_path / "data.pt", digits, factor=9)


def test_which_sets_are_meant(tmp_path):
    for name in ("run/seed10/0", "run/seed2/0", "ten/0", "ten/1", "mtt"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run/seed10/0/a.png", "run/seed2/0/a.png", "ten/0/a.png", "ten/1/a.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / name)
    for name in ("images_best", "labels_best", "images_500", "labels_500"):
        torch.save(torch.zeros(1), tmp_path / "mtt" / f"{name}.pt")
    run, ten, mtt = (str(tmp_path / name) for name in ("run", "ten", "mtt"))
    assert each_set([run]) == [f"{run}/seed2", f"{run}/seed10"]
    assert each_set([ten, f"{run}/seed2"]) == [ten, f"{run}/seed2"]  # classes by number
    assert each_set([mtt]) == [f"{mtt}/images_best.pt"]
    with pytest.raises(MissingError, match="no folder or file he-yang/sets") as error:
        each_set(["he-yang/sets"])
    assert "hf download he-yang/sets --repo-type dataset" in error.value.hint


def test_a_table_beside_the_images_tells_the_classes(tmp_path):
    """Hugging Face's imagefolder: metadata.jsonl or metadata.csv with file_name and a label."""
    for i in range(6):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    lines = [{"file_name": f"{i}.png", "label": [2, 0, 1][i % 3]} for i in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = open_set(tmp_path, make_dataset())
    assert found.images[:, 0, 0, 0].tolist() == [1, 4, 2, 5, 0, 3] and found.ipc == 2
    names = ["green frog", "cat", "dog"]
    (tmp_path / "metadata.jsonl").unlink()
    table = "file_name,text,class\n" + "".join(f"{i}.png,x,{names[i % 3]}\n" for i in range(6))
    (tmp_path / "metadata.csv").write_text(table)
    assert open_set(tmp_path, make_dataset()).digest == found.digest
    (tmp_path / "metadata.csv").write_text(table.replace("5.png", "6.png"))
    with pytest.raises(DataError, match="6.png"):
        open_set(tmp_path, make_dataset())
    (tmp_path / "metadata.csv").write_text(table.replace("dog", "horse"))
    with pytest.raises(DataError, match="horse"):
        open_set(tmp_path, make_dataset())
    (tmp_path / "metadata.csv").write_text(table.replace("class", "kind"))
    with pytest.raises(DataError, match="columns file_name, text, kind"):
        open_set(tmp_path, make_dataset())
