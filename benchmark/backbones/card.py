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
        f"reconstruction     RMSE {rmse:.1f} grey levels, PSNR {psnr:.1f} dB (of {coded['images']} "
        f"{coded.get('split', 'test images')} {coded['accuracy_real']:.1f} % are recognised, "
        f"{coded['accuracy_reconstructed']:.1f} % reconstructed)",
        f"validation loss    {noise['loss']:.4f} ({levels})",
    ]
    for guidance in ("1", "2", "4"):
        if f"recognised_guidance_{guidance}" in made:
            like = made.get(f"likeness_guidance_{guidance}")
            lines.append(
                f"samples            {made[f'recognised_guidance_{guidance}']:.1f} % recognised at guidance {guidance} "
                f"({made['count']} images, {made['steps']} steps)"
                + (
                    f"; Frechet distance {like['frechet']:.3g}, precision {like['precision']:.1f} %, "
                    f"coverage {like['coverage']:.1f} %"
                    if like
                    else ""
                )
            )
    if "before" in report:
        lines.append(f"before fine-tuning validation loss {report['before']['validation']['loss']:.4f}")
    return "\n".join(lines)


def row_names() -> list[str]:
    """Heads of the columns of :func:`row`."""
    return ["validation", "coded", *(f"{name} @{g}" for g in (1, 2, 4) for name in ("recognised", "Frechet"))]


def row(report: dict) -> list[str]:
    """The report card as one line of a table: validation loss, accuracy on reconstructions, then each guidance."""
    made = report["samples"]
    cells = [f"{report['validation']['loss']:.4f}", f"{report['reconstruction']['accuracy_reconstructed']:.1f}"]
    for guidance in (1, 2, 4):
        like = made.get(f"likeness_guidance_{guidance}", {})
        cells.append(f"{made.get(f'recognised_guidance_{guidance}', float('nan')):.1f}")
        cells.append(f"{like.get('frechet', float('nan')):.3g}")
    return [cell.rjust(len(name)) for cell, name in zip(cells, row_names())]
