"""Sets released as parquet files, as on the Hugging Face hub: `image`, `class_id`."""

import io

import numpy as np
import pytest
from PIL import Image
from test_distilled_import import make_dataset

from benchmark.core.errors import DataError
from benchmark.sets.given import describe_set, open_set

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def write(folder, labels, *, name="train-00000-of-00001-0a1b2c3d.parquet", column="class_id", **more):
    rows = []
    for i in range(len(labels)):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(buffer, "PNG")
        rows.append({"bytes": buffer.getvalue(), "path": f"{i}.png"})
    folder.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(
        pa.table({"image": pa.array(rows, kind), column: pa.array(labels, pa.int32()), **more}), folder / name
    )
    return folder / name


def test_a_set_in_parquet(tmp_path, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    dataset = make_dataset()
    file = write(tmp_path / "released" / "data", [2, 0, 1, 1, 0, 2])
    root = tmp_path / "released"
    assert describe_set(root) == {"ipc": 2}
    found = open_set(root, dataset)
    assert found.ipc == 2 and found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(found.images[:, 0, 0, 0].numpy(), [10, 40, 20, 30, 0, 50])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as parquet") as error:
        open_set(root, dataset)
    assert error.value.where == str(file)
    write(tmp_path / "other", [0, 1, 1, 0])
    with pytest.raises(DataError, match="labels 0 to 1") as error:
        open_set(tmp_path / "other", dataset)
    assert "0 to 2" in error.value.allowed
    write(tmp_path / "odd", [0, 1, 2], column="kind")
    with pytest.raises(DataError, match="columns image, kind"):
        open_set(tmp_path / "odd", dataset)


@pytest.mark.parametrize("soft", [[[0.9, 0.1, 0.0]] * 3, [0.5, 0.2, 0.1]], ids=["vectors", "weights"])
def test_stored_soft_labels_are_refused(tmp_path, monkeypatch, soft):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "cache"))
    names = {"class_name": ["a", "b", "c"], "row": [0, 1, 2]}
    write(tmp_path / "plain", [0, 1, 2], **names)
    assert open_set(tmp_path / "plain", make_dataset()).ipc == 1
    write(tmp_path / "soft", [0, 1, 2], soft_label=soft, **names)
    with pytest.raises(DataError, match="beside images and labels: soft_label\n"):
        open_set(tmp_path / "soft", make_dataset())
