"""The variational bound that trains a learned sigma (Improved DDPM, arXiv 2102.09672, section 3.1).

As the DiT that Minimax fine-tunes: variance between the posterior's and beta in the logarithm, plain sum of mean
squared error and bound, the bound never moving the predicted mean.
"""

from __future__ import annotations

import math

import torch


class Bound:
    """Constants of a noise schedule, and the bound of a batch.

    Args:
        alphas_cumprod: ``[1000]``, products of 1 - beta.
        device: where the batches will lie.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, device: str = "cpu") -> None:
        total = alphas_cumprod.double().cpu()
        before = torch.cat([total.new_ones(1), total[:-1]])
        alpha = total / before
        beta = 1 - alpha
        variance = beta * (1 - before) / (1 - total)
        variance[0] = variance[1]  # zero at the first level: its logarithm is replaced by the second's
        self.log_beta, self.log_variance = beta.log(), variance.log()
        self.of_clean = beta * before.sqrt() / (1 - total)  # posterior mean = of_clean * x0 + of_noisy * x_t
        self.of_noisy = (1 - before) * alpha.sqrt() / (1 - total)
        for name, values in list(vars(self).items()):  # float64 on the CPU, so that devices agree; read every step
            setattr(self, name, values.to(device))

    def __call__(
        self, clean: torch.Tensor, noisy: torch.Tensor, predicted: torch.Tensor, raw: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        """Bits per dimension of each image, ``[n]``.

        Args:
            clean, noisy: latents ``[n, c, h, w]`` without noise and at level ``t``.
            predicted: predicted clean latents (gradients stop here). raw: the model's output for the variance, -1..1.
        """

        def at(values: torch.Tensor) -> torch.Tensor:
            return values[t].float().view(-1, 1, 1, 1)

        mean = at(self.of_clean) * clean + at(self.of_noisy) * noisy
        guess = at(self.of_clean) * predicted.detach() + at(self.of_noisy) * noisy
        share = (raw + 1) / 2
        log_guess = share * at(self.log_beta) + (1 - share) * at(self.log_variance)
        log_true = at(self.log_variance)
        kl = 0.5 * (log_guess - log_true - 1 + (log_true - log_guess).exp() + (mean - guess) ** 2 * (-log_guess).exp())
        first = -_log_likelihood(clean, guess, 0.5 * log_guess)
        nats = torch.where((t == 0).view(-1, 1, 1, 1), first, kl)
        return nats.flatten(1).mean(1) / math.log(2)


def _cdf(x: torch.Tensor) -> torch.Tensor:
    """The normal distribution function in its usual tanh approximation."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _log_likelihood(x: torch.Tensor, mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Log-likelihood of ``x`` in bins of width 2/255 on -1..1 whose outermost are open (DDPM, equation 13)."""
    scale, centred = (-log_std).exp(), x - mean
    upper, lower = _cdf(scale * (centred + 1 / 255)), _cdf(scale * (centred - 1 / 255))
    mass = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return mass.clamp_min(1e-12).log()
