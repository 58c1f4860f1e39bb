"""The command `restore`: what a damaged picture may have been, by a run. No maths here."""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

from alphabar.arguments import check_number, check_whole
from alphabar.frame import NetOfRun, Run, command, say_pairs, use_one_thread, whole
from alphabar.output import check_file, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from alphabar.operators import Operator
    from alphabar.origin import Origin
    from alphabar.restore import Restored

TASKS = ("denoise", "inpaint", "superres", "deblur", "colorize", "edit")
DRAWS = 8
ROUNDING = 0.01  # σ_y of a picture of 8 bits, with something to spare
STEPS = 50  # of an edit


class _Damage(NamedTuple):
    """What was done to the picture that is asked for."""

    operator: "Operator"
    y: "Tensor"  # as of the operator
    shown: "Tensor"  # (1, C, H, W), what was given


@command
def restore(
    run: Run,
    path: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder.")],
    picture: Annotated[str, typer.Argument(metavar="INPUT", help="The damaged picture.")],
    task: Annotated[
        str,
        typer.Option(
            "--task", help="denoise, inpaint, superres, deblur, colorize (by A·x + noise) or edit."
        ),
    ],
    mask: Annotated[
        str | None,
        typer.Option("--mask", metavar="FILE", help="To inpaint: white where pixels are missing."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            "--noise",
            metavar="S",
            help="Standard deviation of the noise in the picture; black to white is 2.",
        ),
    ] = None,
    blur: Annotated[
        float | None,
        typer.Option("--blur", metavar="PIXELS", help="To deblur: how wide the blur is."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", metavar="S", help="To edit: from 0 (unchanged) to 1 (all new)."),
    ] = None,
    n: Annotated[
        int, typer.Option("-n", parser=whole, metavar="N", help="How many draws.")
    ] = DRAWS,
    label: Annotated[
        int | None,
        typer.Option("--label", parser=whole, metavar="K", help="The class of the picture."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option("--guidance", metavar="S", help="Classifier-free guidance to the class."),
    ] = None,
    crowd: Annotated[
        int,
        typer.Option(
            "--crowd",
            parser=whole,
            metavar="M",
            help="Items on the way for each draw, weighed and drawn again: right shares of what "
            "may have been, of small pictures; 0: none.",
        ),
    ] = 0,
    net: NetOfRun = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", help="The given picture, mean, spread and draws (.png .svg .pdf); draws (.npy)."
        ),
    ] = None,
) -> None:
    """Restore a picture: several draws of what it may have been, their mean and their spread."""
    stills = (".png", ".svg", ".pdf")
    if output:
        check_file(output, (*stills, ".npy"), run.force)
    if task not in TASKS:
        raise ValueError(f"--task {task}: choose {', '.join(TASKS[:-1])} or {TASKS[-1]}")
    own = {"inpaint": "mask", "deblur": "blur", "edit": "strength"}
    options = {"mask": mask, "blur": blur, "strength": strength}
    for name, value in options.items():
        needed = own.get(task) == name
        if needed and value is None:
            raise ValueError(f"--task {task} needs --{name}")
        if value is not None and not needed:
            raise ValueError(f"--{name} is not for --task {task}; leave it out")
    if task == "denoise" and noise is None:
        raise ValueError("--task denoise needs --noise, such as 0.3 where black to white is 2")
    if task == "edit" and noise is not None:
        raise ValueError("--noise is not for --task edit; leave it out")
    check_whole("-n", n, 1, 10_000)
    use_one_thread()
    from alphabar.origin import origin_of_run

    origin = origin_of_run(path, label, guidance, net)
    if origin.kind != "pictures" or origin.source.standardiser is not None:
        raise ValueError(
            f"{path} draws {'points' if origin.kind == 'points' else 'standardised pictures'}: "
            "restore is for pictures; for others see alphabar.restore in Python"
        )
    std = noise if noise is not None else ROUNDING if task in ("deblur", "superres") else 0.0
    check_number("--noise", std, 0, 1e6, "a standard deviation ≥ 0, such as 0.1")
    damage = _damage(task, origin.source.shape, picture, mask, blur)
    began = time.perf_counter()
    steps = _steps(origin, task, damage, std, strength, n, run.seed, crowd)
    with run.progress() as bar:
        advance, last = None, None
        for last in steps:
            advance = advance or bar("restoring", last.left + 1)
            advance()
    assert last is not None
    seconds = time.perf_counter() - began
    away = _away(damage, last.draws)
    if output:
        with writing(output) as temporary:
            _write(run, temporary, damage, last.draws)
    spread = last.spread.square().mean().sqrt().item() if n > 1 else None
    say_pairs(
        run,
        {
            "run": path,
            "task": task,
            "samples": f"{n}   seed {run.seed}",
            "calls": str(last.nfe),
            "seconds": f"{seconds:.2f}",
        },
    )
    if output:
        run.say(run.text("written", path=output))
    run.finish(
        {
            "file": str(output) if output else None,
            "run": path,
            "task": task,
            "n": n,
            "noise": None if task == "edit" else std,
            "residual": None if task == "edit" else away,
            "spread": spread,
            "nfe": last.nfe,
            "seconds": seconds,
            "seed": run.seed,
            "class": label,
            "guidance": guidance,
        }
    )


def _damage(
    task: str, shape: tuple[int, ...], path: str, mask: str | None, blur: float | None
) -> _Damage:
    """The operator of a task, and what it has left of the picture."""
    import torch

    from alphabar.operators import Blur, Downscale, Grey, Identity, Mask

    channels, height, width = shape
    given = _read(path, "L" if task == "colorize" or channels == 1 else "RGB")
    size = tuple(given.shape[1:])
    whole_size = f"{width}×{height}"
    this = f"{path!r} is {size[1]}×{size[0]}, and the run draws {whole_size}"
    if task == "superres":
        factor = height // max(1, size[0])
        if factor < 2 or (size[0] * factor, size[1] * factor) != (height, width):
            raise ValueError(f"{this}: superres needs a picture that is 2, 3, … times smaller")
        return _Damage(Downscale(shape, factor), given, given[None])
    if size != (height, width):
        raise ValueError(f"{this}: give a picture of that size")
    operator: Operator
    if task == "inpaint":
        assert mask is not None
        hole = _read(mask, "L")[0]
        if tuple(hole.shape) != size:
            raise ValueError(
                f"--mask {mask} is {hole.shape[1]}×{hole.shape[0]}, and the picture {whole_size}: "
                "they must be of one size"
            )
        known = hole < 0
        if bool(known.all()):
            raise ValueError(f"--mask {mask} is all black: make white what is missing")
        operator = Mask(known, shape)
        shown = torch.where(known, given, torch.nan)
        return _Damage(operator, operator.apply(given[None])[0], shown[None])
    if task == "deblur":
        assert blur is not None
        operator = Blur(shape, blur)
    else:
        operator = Grey(shape) if task == "colorize" else Identity(shape)
    return _Damage(operator, given, given[None])


def _read(path: str, mode: Literal["L", "RGB"]) -> "Tensor":
    """A picture, (C, H, W) in [−1, 1]."""
    import numpy as np
    import torch

    from alphabar.data.pictures import read_picture

    levels = np.asarray(read_picture(path).convert(mode), np.float32) / 127.5 - 1
    return torch.from_numpy(levels.reshape(*levels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _steps(
    origin: "Origin",
    task: str,
    damage: _Damage,
    noise: float,
    strength: float | None,
    n: int,
    seed: int,
    crowd: int,
) -> "Iterator[Restored]":
    """The draws on their way."""
    from alphabar.restore import denoise, edit, posterior
    from alphabar.samplers import dpmpp_2m_sde

    denoiser, schedule = origin.source.denoiser, origin.schedule
    many = damage.shown.expand(n, *damage.shown.shape[1:])
    if task == "edit":
        assert strength is not None
        few = schedule.spaced(min(STEPS, schedule.T), "log_snr")
        return edit(denoiser, dpmpp_2m_sde(), few, many, strength, seed)
    if task == "denoise":
        return denoise(denoiser, schedule, many, noise, seed)
    return posterior(denoiser, schedule, damage.operator, damage.y, noise, n, seed, crowd=crowd)


def _away(damage: _Damage, draws: "Tensor") -> float:
    """‖A·x_0 − y‖ of a draw, a number: about σ_y where the draws fit what was given."""
    apart = damage.operator.apply(draws) - damage.y
    return float(apart.norm() / math.sqrt(apart.numel()))


def _write(run: Run, path: Path, damage: _Damage, draws: "Tensor") -> None:
    import numpy as np

    if path.suffix == ".npy":
        np.save(path, draws.float().numpy(), allow_pickle=False)
        return
    from alphabar.figures import Style, restored

    restored(damage.shown, draws, style=Style(lang=run.lang)).savefig(path, dpi=150)
