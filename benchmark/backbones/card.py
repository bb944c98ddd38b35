"""The report card as text; light, imports no torch."""

from __future__ import annotations


def text(report: dict) -> str:
    """The report card as lines for a terminal."""
    if not report:
        return "no report card (the folder was not made by ddbench)"
    coded, made, noise, size = (report[k] for k in ("reconstruction", "samples", "validation", "parameters"))
    judge, rmse, psnr = report["classifier"], coded["rmse_grey_levels"], coded["psnr_db"]
    levels = ", ".join(f"{t}: {e:.3f}" for t, e in noise["levels"])
    lines = [
        f"dataset            {report['dataset']}",
        f"parameters         DiT {size['dit'] / 1e6:.1f} M, VAE {size['vae'] / 1e6:.1f} M",
        f"image, latent      {report['image_size']} px, {'x'.join(map(str, report['latent_shape']))}",
        f"classifier         {judge['name']} ({judge['accuracy']:.1f} % on the test split)",
        f"reconstruction     RMSE {rmse:.1f} grey levels, PSNR {psnr:.1f} dB (of {coded['images']} test images "
        f"{coded['accuracy_real']:.1f} % are recognised, {coded['accuracy_reconstructed']:.1f} % reconstructed)",
        f"validation loss    {noise['loss']:.4f} ({levels})",
    ]
    for guidance in ("1", "4"):
        if f"recognised_guidance_{guidance}" in made:
            lines.append(
                f"samples            {made[f'recognised_guidance_{guidance}']:.1f} % recognised at guidance {guidance} "
                f"({made['count']} images, {made['steps']} steps)"
            )
    if "before" in report:
        lines.append(f"before fine-tuning validation loss {report['before']['validation']['loss']:.4f}")
    return "\n".join(lines)
