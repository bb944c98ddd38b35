"""The extra metrics that ddbench registers; light, imports no torch."""

from benchmark.plugins.infos import MetricInfo

METRICS = [
    MetricInfo(
        "corruptions",
        "top-1 under noise, blur, contrast and JPEG, mean of five strengths",
        "benchmark.evaluation.metrics.robustness:corruptions",
    ),
    MetricInfo(
        "attacks", "top-1 under FGSM and PGD at radius 2/255", "benchmark.evaluation.metrics.robustness:attacks"
    ),
]
