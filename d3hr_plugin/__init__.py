"""D3HR (arXiv 2505.18399): dataset distillation by DDIM inversion, per-class Gaussians and group sampling.

``params`` every option · ``schedule`` noise levels · ``inversion`` images to noise · ``statistics`` streaming
Gaussians, stored · ``scores`` how well a group represents its class · ``groups`` samplers of groups ·
``winner_distribution`` the search's winner without its losers · ``models`` class models beside the Gaussian ·
``selection`` by a teacher's features · ``decoding`` noise to images · ``method`` the plug-in · ``modes`` the method
d3hr-modes. "Authors' code" is github.com/lin-zhao-resoLve/D3HR, 8ba351d.
"""
