"""D3HR (arXiv 2505.18399): dataset distillation by DDIM inversion, per-class Gaussians and group sampling.

``schedule`` noise levels · ``inversion`` images to noise · ``statistics`` streaming Gaussians, stored · ``scores`` how
well a group represents its class · ``groups`` samplers of groups · ``law`` the search over groups, in law ·
``decoding`` noise to images · ``method`` the plug-in. "Authors' code" is github.com/lin-zhao-resoLve/D3HR, 8ba351d.
"""
