"""The students that ddbench registers; light, imports no torch.

``lr_group`` is the key into a protocol's table of learning rates. RDED and D3HR pick the rate by architecture; the
groups are the families that share one there.
"""

from benchmark.plugins.infos import StudentInfo

CONVNET, LIBRARY = "benchmark.students.convnet", "benchmark.students.library"

STUDENTS = [
    StudentInfo("convnet3_bn", "ConvNet-3, width 128, BatchNorm (RDED, D3HR)", f"{CONVNET}:convnet3_bn", "convnet"),
    StudentInfo("convnet4_bn", "ConvNet-4, width 128, BatchNorm (RDED on Tiny)", f"{CONVNET}:convnet4_bn", "convnet"),
    StudentInfo(
        "convnet5_bn", "ConvNet-5, width 128, BatchNorm (RDED, 10 classes)", f"{CONVNET}:convnet5_bn", "convnet"
    ),
    StudentInfo(
        "convnet6_bn", "ConvNet-6, width 128, BatchNorm (RDED, 100 classes)", f"{CONVNET}:convnet6_bn", "convnet"
    ),
    StudentInfo(
        "convnet3_in", "ConvNet-3, width 128, instance norm (DC, DSA, DM)", f"{CONVNET}:convnet3_in", "convnet"
    ),
    StudentInfo("convnet4_in", "ConvNet-4, width 128, instance norm", f"{CONVNET}:convnet4_in", "convnet"),
    StudentInfo("convnet6_in", "ConvNet-6, width 128, instance norm (IDC)", f"{CONVNET}:convnet6_in", "convnet"),
    StudentInfo("resnet18", "ResNet-18; small-image stem up to 64 px", f"{LIBRARY}:resnet18", "resnet"),
    StudentInfo("resnet50", "ResNet-50; small-image stem up to 64 px", f"{LIBRARY}:resnet50", "resnet"),
    StudentInfo("resnet101", "ResNet-101; small-image stem up to 64 px", f"{LIBRARY}:resnet101", "resnet"),
    StudentInfo(
        "resnetap10",
        "ResNet-10 with average pooling, instance norm (IDC, Minimax)",
        "benchmark.students.resnet_ap:resnetap10",
        "resnet",
    ),
    StudentInfo("mobilenetv2", "MobileNetV2", f"{LIBRARY}:mobilenetv2", "mobilenet"),
    StudentInfo("efficientnet_b0", "EfficientNet-B0", f"{LIBRARY}:efficientnet_b0", "efficientnet"),
    StudentInfo("shufflenetv2", "ShuffleNetV2 x1.0", f"{LIBRARY}:shufflenetv2", "shufflenet"),
    StudentInfo("vgg11", "VGG-11", f"{LIBRARY}:vgg11", "vgg"),
    StudentInfo("swin_t", "Swin-T", f"{LIBRARY}:swin_t", "transformer"),
    StudentInfo("vit_tiny", "ViT-tiny; patch size follows the image", f"{LIBRARY}:vit_tiny", "transformer"),
    StudentInfo("deit_tiny", "DeiT-tiny (ViT-tiny, distilled head off)", f"{LIBRARY}:deit_tiny", "transformer"),
    StudentInfo("convnext_t", "ConvNeXt-T", f"{LIBRARY}:convnext_t", "convnext"),
    StudentInfo("timm:", "any model of timm, e.g. timm:resnet26", f"{LIBRARY}:timm_model", "auto"),
    StudentInfo("torchvision:", "any torchvision classifier, e.g. torchvision:alexnet", f"{LIBRARY}:tv_model", "auto"),
]
