"""The columns of ``leaderboard.csv``: name, pandas dtype, meaning. ``results/README.md`` prints this table."""

from __future__ import annotations

# One row is a cell: everything equal but the seed.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("dataset", "string", "dataset name"),
    ("dataset_digest", "string", "first 12 hex digits of the SHA-256 of the dataset's content"),
    ("protocol", "string", "evaluation protocol"),
    ("protocol_version", "string", "version of the protocol"),
    (
        "protocol_digest",
        "string",
        "first 12 hex digits of the SHA-256 of the protocol's text (overrides change it)",
    ),
    ("teacher", "string", "teacher that labels the images; empty where the protocol needs none"),
    ("teacher_key", "string", "first 12 hex digits of the teacher's key"),
    ("student", "string", "architecture trained from scratch on the distilled set"),
    ("ipc", "Int64", "images per class"),
    ("method", "string", "distillation method"),
    ("method_version", "string", "version of the method's plug-in"),
    ("params", "string", "the method's parameters as canonical JSON"),
    ("inputs", "string", "what else the sets were made from, such as the teacher that a method looked at"),
    ("backbone", "string", "diffusion backbone; empty where the method needs none"),
    ("backbone_key", "string", "first 12 hex digits of the backbone's key"),
    ("precision", "string", "fp32, tf32, bf16, fp16 (+compile) or the policy as JSON"),
    ("set", "string", "digest of the distilled set, only where two sets share a seed (external folders)"),
    ("seeds", "Int64", "number of seeds that succeeded; every mean and interval is over these"),
    ("seed_list", "string", "those seeds, separated by blanks"),
    ("failed", "Int64", "number of seeds that failed"),
    ("skipped", "Int64", "number of seeds that were skipped (not supported)"),
    ("top1_last", "Float64", "top-1 accuracy on the test split after the last epoch, mean, percent; ranks the boards"),
    ("top1_last_half", "Float64", "half width of its 95 % t interval over seeds; empty for one seed"),
    (
        "top1_last_half_both",
        "Float64",
        "the same over seeds and test images (two-way random effects), where every record holds its bits",
    ),
    ("top1_last_std", "Float64", "standard deviation over seeds (n - 1)"),
    ("top1_best", "Float64", "best of the evaluated epochs (chosen on the test split), mean, percent"),
    ("top1_best_half", "Float64", "half width of its 95 % t interval"),
    ("top5_last", "Float64", "top-5 accuracy after the last epoch, mean, percent"),
    ("ece", "Float64", "expected calibration error, mean, percent"),
    ("gain_over_random", "Float64", "mean over shared seeds of top1_last minus that of random real images, points"),
    ("gain_half", "Float64", "half width of the 95 % t interval of that paired difference"),
    ("gain_half_both", "Float64", "the same over seeds and test images, where every record holds its bits"),
    ("gain_seeds", "Int64", "number of shared seeds"),
    (
        "distill_seconds",
        "Float64",
        "seconds of one worker that made one distilled set, stages shared with other sets included, mean over seeds",
    ),
    ("train_seconds", "Float64", "wall-clock seconds that trained and tested one student, mean over seeds"),
    ("peak_memory_bytes", "Float64", "peak memory of training, maximum over seeds, bytes"),
    ("image_bytes", "Float64", "distilled images on disk, mean over seeds, bytes"),
    ("label_bytes", "Float64", "stored soft labels, mean over seeds, bytes; 0 for online and hard labels"),
    ("device", "string", "devices that trained the students"),
    ("teacher_accuracy", "Float64", "top-1 of the teacher on the test split at the gate, percent"),
    ("set_recognised", "Float64", "part of the distilled set that the teacher gets right, mean over seeds, percent"),
    ("set_gate", "string", "ok; weak where the teacher's answers do not differ significantly from chance; waived"),
    (
        "standing",
        "string",
        "top: the best of its column or not significantly different from it (`boards.standing`); below; ? where too "
        "little is known",
    ),
    ("tuned", "string", "how `ddbench tune` chose the settings, or that they are the authors'; else empty"),
    ("flags", "string", "remarks, see FLAGS; separated by blanks"),
    ("reason", "string", "why seeds failed or were skipped, at most 200 characters; the records hold all of it"),
)

NAMES = tuple(name for name, _, _ in COLUMNS)
DTYPES = {name: dtype for name, dtype, _ in COLUMNS}

FLAGS: dict[str, str] = {
    "few-seeds": "fewer than 3 seeds: the interval says little",
    "no-random": "the results folder has no record of random real images in this column with a shared seed: no gain",
    "one-set": "all seeds trained on one distilled set: the interval leaves out the spread of distillation",
    "precision": "another precision policy than most rows of the same column",
    "failures": "some seeds failed",
    "weak-set": "the teacher recognises less than half as many of the set's images as of test images",
    "gate-waived": "the method or the user waives the gate that the teacher must recognise its set",
}
MIN_SEEDS = 3
