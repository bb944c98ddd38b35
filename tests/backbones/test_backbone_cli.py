"""`ddbench backbone`."""

import json
import subprocess
import sys

from click.testing import CliRunner
from toy_backbones import TINY, write_folder

from benchmark.cli.backbone import backbone


def test_help_without_torch():
    code = "import sys; from benchmark.cli.backbone import backbone as b; b(['--help'], standalone_mode=False); "
    code += "print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "finetune" in out and out.strip().endswith("False")


def test_show_of_a_foreign_folder(tmp_path):
    folder = write_folder(tmp_path / "b")
    found = CliRunner().invoke(backbone, ["show", str(folder)])
    assert found.exit_code == 0 and "no report card" in found.output


def test_show_prints_the_card(tmp_path):
    folder = write_folder(tmp_path / "b")
    card = {
        "dataset": "toy",
        "parameters": {"dit": 1_000_000, "vae": 200_000},
        "image_size": 8,
        "latent_shape": [4, 4, 4],
        "classifier": {"name": "convnet", "accuracy": 99.0},
        "reconstruction": {
            "images": 5,
            "rmse_grey_levels": 3.0,
            "psnr_db": 30.0,
            "accuracy_real": 99.0,
            "accuracy_reconstructed": 98.5,
        },
        "validation": {"loss": 0.25, "levels": [[50, 0.5], [950, 0.01]], "images": 5},
        "samples": {"count": 10, "steps": 50, "recognised_guidance_1": 80.0, "recognised_guidance_4": 93.0},
    }
    (folder / "report.json").write_text(json.dumps(card))
    output = CliRunner().invoke(backbone, ["show", str(folder)]).output
    assert "98.5 %" in output and "93.0 % recognised at guidance 4" in output and "0.2500" in output
    shown = json.loads(CliRunner().invoke(backbone, ["show", str(folder), "--json"]).output)
    assert shown["report"] == card


def test_out_that_is_not_empty(tmp_path):
    (tmp_path / "x").write_text("")
    found = CliRunner().invoke(backbone, ["train", "--dataset", "digits", "--out", str(tmp_path)])
    assert "not empty" in str(found.exception)


def test_train_show_and_finetune(tmp_path, toy, judge, monkeypatch):
    monkeypatch.setenv("DDBENCH_CACHE", str(tmp_path / "store"))
    options = []
    monkeypatch.setattr("benchmark.data.load_dataset", lambda name, root=None, **o: options.append(o) or toy)
    sets = [part for key, value in {**TINY, "dit_steps": 4}.items() for part in ("--set", f"{key}={value}")]
    trained = tmp_path / "trained"
    found = CliRunner().invoke(
        backbone,
        ["train", "--dataset", "digits", "--preset", "tiny", "--image-size", "8", "--on-corrupt", "skip"]
        + ["--teacher", "convnet3_bn", "--out", str(trained), *sets],
    )
    assert found.exit_code == 0, found.output
    assert options == [{"image_size": 8, "on_corrupt": "skip"}]
    assert json.loads((trained / "report.json").read_text())["classifier"]["name"] == "convnet3_bn"
    assert "validation loss" in found.output and (trained / "report.png").is_file()
    other = tmp_path / "tuned"
    command = ["finetune", "--from", str(trained), "--dataset", "digits", "--steps", "2", "--batch", "4"]
    found = CliRunner().invoke(backbone, [*command, "--parameters", "light", "--out", str(other)])
    assert found.exit_code == 0, found.output
    assert "before fine-tuning validation loss" in found.output
    about = json.loads((other / "ddbench.json").read_text())
    assert about["from"]["name"] == str(trained) and about["settings"]["finetune"]["parameters"] == "light"
