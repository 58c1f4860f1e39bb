"""What check takes the functions of a file for, and which facts it finds there."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alphabar.check.discover import (
    Asked,
    Module,
    Task,
    could_be_tried,
    looks_forward,
    with_model,
)
from alphabar.check.names import (
    STEPS_NAME,
    gives_of,
    is_conversion,
    is_vague,
    process_of,
    roles_of,
)
from alphabar.check.tables import as_betas, table_in, table_of, used

BETAS = torch.linspace(1e-3, 0.1, 50)
BARS = (1 - BETAS).cumprod(0)


@pytest.mark.parametrize(
    ("names", "role"),
    [
        ("make_beta_schedule linear_beta_schedule cosine_beta_schedule get_betas", "schedule"),
        ("forward_process forward_step q_step", "transition"),
        ("q_sample add_noise forward_diffusion_sample diffuse noise_images perturb", "marginal"),
        ("q_posterior q_posterior_mean_variance", "posterior"),
        ("p_sample ddim_step reverse_step remove_noise", "step"),
        ("p_sample_loop sample ddim_sample generate HeunSampler sampling", "sampler"),
        ("edm_sampler sample_euler heun_sampler ancestral_sampling pc_sampler", "sampler"),
        ("Euler_Maruyama_sampler sample_dpmpp_2m sample_euler_ancestral rk4_sampler", "sampler"),
        ("forward_diffusion_process", "transition"),
        ("interpolate lerp corrupt get_x_t marginal_prob", "marginal"),
        ("p_losses noise_estimation_loss get_loss training_losses", "loss"),
        ("EMA EMAModel update_ema ExponentialMovingAverage", "ema"),
        ("time_embedding SinusoidalPositionEmbeddings get_timestep_embedding", "embedding"),
        ("min_snr_weight snr_weights loss_weight", "weighting"),
        ("sample_timesteps sample_time times", "time_sampling"),
        ("cfg guided_output ClassifierFree p_sample_classifier", "guidance"),
        ("langevin_step annealed_langevin corrector", "langevin"),
        ("prior_kl vlb_term nll", "likelihood"),
    ],
)
def test_usual_names(names: str, role: str) -> None:
    for name in names.split():
        assert roles_of(name)[0] == role, name


def test_names_that_say_nothing() -> None:
    for name in ("extract", "plot_loss", "save_samples", "init_weights", "sample_batch", "Unet"):
        assert roles_of(name) == (), name
    assert STEPS_NAME.fullmatch("n_timesteps")
    assert not STEPS_NAME.fullmatch("train_steps")
    assert not STEPS_NAME.fullmatch("t")
    assert gives_of("q_mean_std") == "mean_std"
    assert gives_of("q_sample") is None


def test_names_that_are_used_for_other_things() -> None:
    clear = "q_sample p_losses loss_fn flow_matching_loss cfg_eps snr_weights q_posterior posterior"
    vague = "interpolate mix perceptual_loss vae_loss Classifier get_cfg class_weights elbo denoise"
    assert not any(map(is_vague, clear.split()))
    assert all(map(is_vague, vague.split()))


def test_parts_and_conversions_have_no_role() -> None:
    for name in ("marginal_prob_std", "marginal_std", "marginal_log_mean_coeff", "batch_sampler"):
        assert roles_of(name) == (), name
        assert not is_conversion(name)
    for name in (
        "predict_start_from_noise",
        "predict_noise_from_start",
        "predict_v",
        "x0_from_eps",
    ):
        assert is_conversion(name), name
    assert not is_conversion("get_velocity")  # which is checked, as a marginal's


def test_names_that_tell_a_process() -> None:
    assert process_of("sample_euler", "VelocityNet")["scale"] == "flow"
    assert process_of("edm_sampler", "VelocityNet") == {"scale": "ve", "predicts": "x_0"}
    assert process_of("loss_fn", "ScoreNet") == {"scale": "ve", "predicts": "score"}
    assert process_of("q_sample", "Unet") == {}


# --- β_t


def found(names: dict[str, object]) -> Tensor:
    table = table_in(names)
    assert table is not None
    return table.values


@pytest.mark.parametrize(
    "names",
    [
        {"alphas": 1 - BETAS, "betas": BETAS, "sqrt_betas": BETAS.sqrt()},
        {"beta": BETAS.numpy()},
        {"my_beta_table": BETAS.tolist()},
        {"betas": torch.cat([torch.zeros(1), BETAS])},  # β_0 = 0 is clean data
        {"alphas_cumprod": BARS},
        {"alpha_hat": BARS, "alpha": 1 - BETAS},
        {"alpha_bar": BARS, "alphas_bar_sqrt": BARS.sqrt()},
        {"k": BETAS, "m": BARS, "u": (1 - BARS).sqrt()},  # ᾱ_t = ∏(1 − β) gives them away
    ],
    ids=lambda names: " ".join(names),
)
def test_betas_are_found(names: dict[str, object]) -> None:
    torch.testing.assert_close(found(names), BETAS.double(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"k": BETAS},  # any table rises
        {"beta": 0.5, "betas": None, "beta_start": 1e-4},
        {"betas": BETAS * 100},
        {"betas": BETAS.flip(0)},
        {"betas": BETAS[None]},
        {"betas": [1, "2"]},
        {"betas": torch.arange(5)},
        {"alphas_bar_sqrt": BARS.sqrt(), "one_minus_alphas_bar_sqrt": (1 - BARS).sqrt()},
    ],
    ids=str,
)
def test_what_is_no_table_of_betas(names: dict[str, object]) -> None:
    assert table_in(names) is None


def test_betas_of_an_object() -> None:
    class Plain:
        def __init__(self) -> None:
            self.beta = BETAS.numpy()

    buffers = nn.Module()
    buffers.register_buffer("betas", BETAS)
    for owner, name in ((Plain(), "Plain.beta"), (buffers, "Module.betas")):
        table = table_of(owner)
        assert table is not None
        assert table.name == name
        assert np.allclose(table.values, BETAS)
    assert table_of(None) is None
    assert table_of(Plain) is None


def test_betas_that_a_function_reads() -> None:
    """Of two schedules in a file, the one that a function's tables come from."""
    other = torch.linspace(1e-4, 0.5, 50)
    names = {"betas": BETAS, "betas_zero": other, "s": (1 - other).cumprod(0).sqrt(), "b": BARS}
    one, two = used(["s"], names), used(["b"], names)
    assert one is not None
    assert one.name == "betas_zero"
    assert two is not None
    assert two.name == "betas"
    assert used(["nothing"], names) is None


def test_any_order_if_stated() -> None:
    assert as_betas(BETAS.flip(0)) is None
    assert as_betas(BETAS.flip(0), any_order=True) is not None
    assert as_betas(-BETAS, any_order=True) is None


# --- tasks

HEAD = """
import torch
from torch import nn
betas = torch.linspace(1e-3, 0.1, 50)
bars = torch.cumprod(1 - betas, 0)
"""


def module(code: str, **asked: Any) -> tuple[Module, dict[str, Task]]:
    names: dict[str, Any] = {"__name__": "strange"}
    exec(HEAD + code, names)
    made = Module(names, Asked(**asked), "strange")
    return made, {task.name: task for task in made.tasks()}


def test_functions_and_what_is_imported() -> None:
    made, tasks = module(
        "from torch.nn.functional import mse_loss\n"
        "def q_sample(x, t): pass\n"
        "def _p_sample(x, t): pass\n"
        "def one(x): pass\n"
        "def two(x, t): return x\n"
        "def three(x, t): open('f', 'w')\n"
    )
    assert list(tasks) == ["betas", "q_sample", "two"]
    assert [t.guessed for t in tasks.values()] == [False, False, True]
    assert made.unrecognised == ["one", "three"]
    assert tasks["q_sample"].said == ("β_t: betas, T = 50",)


def test_what_the_person_says_goes_first() -> None:
    code = "def q_sample(x, t): pass\nclass C:\n  def go(self, x, t): pass\n"
    asked = (("step", "q_sample"), ("marginal", "lambda x, t: C().go(x, t)"))
    _, tasks = module(code, roles=asked, predicts="v", scale="ve", betas="betas[:20]")
    assert [t.roles for t in tasks.values()][:2] == [("step",), ("marginal",)]
    step = tasks["q_sample"]
    assert step.stated
    assert step.facts["predicts"] == "v"
    assert step.facts["scale"] == "ve"
    assert len(step.facts["betas"]) == 20


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"roles": (("step", "q"),)},
            "--as step=q: NameError: name 'q' is not defined; the module",
        ),
        ({"betas": "1 +"}, "--betas 1 \\+: SyntaxError"),
        ({"betas": "'x'"}, "--betas 'x' is a str: give the numbers"),
        ({"betas": "2 * betas + 1"}, "each above 0 and below 1"),
        ({"given": (("a", "b"),)}, "--given a=b: NameError"),
    ],
)
def test_what_makes_no_sense(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module("def f(x): pass", **asked)


def test_arguments_that_the_file_has() -> None:
    _, tasks = module(
        "sqrt_bars = bars.sqrt()\nT = 7\n"
        "def q_sample(x, sqrt_bars, device, t, extra): return x, t, len(sqrt_bars), device, extra\n"
        "def p_sample_loop(model, shape, n_steps, betas, device='cuda', *, k=1):\n"
        "    return model, shape, n_steps, len(betas), device, k\n"
        "def get_loss(model, x_0, n_steps, timesteps): pass\n",
        given=(("extra", "T + 1"), ("data_range", "(0, 1)")),
    )
    assert tasks["q_sample"].function(5, 6) == (5, 6, 50, "cpu", 8)
    assert "device, sqrt_bars taken from the file" in tasks["q_sample"].said
    assert tasks["p_sample_loop"].function(5, 6) == (5, 6, 50, 50, "cpu", 1)
    with pytest.raises(TypeError, match="it takes 2 arguments beside"):
        tasks["p_sample_loop"].function(5, 6, 7)
    assert [*inspect.signature(tasks["get_loss"].function).parameters] == [
        "model",
        "x_0",
        "timesteps",
    ]
    assert tasks["q_sample"].facts["data_range"] == (0, 1)


def test_helpers_that_a_function_is_handed() -> None:
    """σ(t) by its name, with its own arguments filled in where the file has that."""
    _, tasks = module(
        "import functools\n"
        "def marginal_prob_std(t, sigma): return sigma ** t\n"
        "marginal_prob_std_fn = functools.partial(marginal_prob_std, sigma=25.0)\n"
        "def diffusion_coeff(t): return 3 * t\n"
        "def ode_sampler(score_model, marginal_prob_std, diffusion_coeff, batch_size):\n"
        "    return marginal_prob_std(2), diffusion_coeff(2), batch_size\n"
    )
    assert tasks["ode_sampler"].function("model", 4) == (625.0, 6, 4)


def test_what_reads_the_table_is_of_its_process() -> None:
    _, tasks = module(
        "def at(t): return bars[t]\n"
        "def q_sample(x, t): return at(t)\n"
        "def add_noise(x, t): return x * t\n"
    )
    assert tasks["q_sample"].reads_table
    assert not tasks["add_noise"].reads_table


def test_classes_beside_the_items() -> None:
    _, tasks = module(
        "def p_losses(model, x_0, labels, p=0.1): return labels.shape, labels.dtype\n"
        "def sample(model, n, y): return len(y)\n"
        "def p_sample(model, y, t): return y\n"  # y is x_t here
    )
    shape, dtype = tasks["p_losses"].function(None, torch.zeros(5, 3))
    assert (tuple(shape), dtype) == ((5,), torch.long)
    assert tasks["sample"].function(None, 7) == 7
    assert [*inspect.signature(tasks["p_sample"].function).parameters] == ["model", "y", "t"]


def test_one_table_is_checked_once() -> None:
    code = "def linear_beta_schedule(n): return torch.linspace(1e-3, 0.1, n)\n"
    _, tasks = module(code)
    assert list(tasks) == ["betas"]
    _, tasks = module(code + "betas = betas * 0.5\n")
    assert list(tasks) == ["betas", "linear_beta_schedule()"]


def test_an_average_that_others_keep() -> None:
    _, tasks = module(
        "class EMA:\n"
        "    def __init__(self, beta=0.995): self.beta = beta\n"
        "    def reset(self, ema_model, model): self.n = 0\n"
        "class Kept:\n"
        "    def __init__(self, beta): self.beta = beta\n"
        "class KeptEMA:\n"
        "    def __init__(self, model, beta): pass\n"
        "    def update(self, ema_model, model): pass\n"
    )
    assert tasks["EMA.reset"].roles == ("ema",)
    assert tasks["EMA.reset"].facts["decay"] == 0.995
    assert inspect.isclass(tasks["KeptEMA"].function)


CLASSES = """
class GaussianDiffusion(nn.Module):
    def __init__(self, model, *, timesteps, objective="pred_v", img_size=99):
        super().__init__()
        self.model, self.objective, self.size = model, objective, img_size
        self.register_buffer("betas", torch.linspace(1e-3, 0.2, timesteps))
    def q_sample(self, x, t): return x
    def p_sample(self, x, t): return self.model(x, t)
    def helper(self, x): return x

class Needy:
    def __init__(self, riddle): pass
    def q_sample(self, x, t): pass

class Cuda:
    def __init__(self, device="cuda"): assert device == "cpu", "no CUDA"
    def q_sample(self, x, t): pass

class MyScheduler:
    variance_type = "learned_range"
    def set_timesteps(self, n): pass
    def step(self, out, t, x): pass
    def add_noise(self, x, noise, t): pass

class Unet(nn.Module):
    def forward(self, x, t): return x

class EMA: pass

class TimeEmbedding(nn.Module):
    def __init__(self, dim): self.dim = dim
    def forward(self, t): return t
"""


def test_classes() -> None:
    _, tasks = module(CLASSES)
    assert list(tasks)[1:] == [
        "GaussianDiffusion.q_sample",
        "GaussianDiffusion.p_sample",
        "Needy.q_sample",
        "Cuda.q_sample",
        "MyScheduler",
        "EMA",
        "TimeEmbedding()",
    ]
    one = tasks["GaussianDiffusion.p_sample"]
    assert one.stated
    assert one.facts["predicts"] == "v"
    assert one.facts["betas"][-1] == pytest.approx(0.2)
    assert one.said == ("β_t: GaussianDiffusion.betas, T = 50",)
    assert one.function(lambda x, t: x + t, 3, 4) == 7  # the network is an argument now
    assert "Needy cannot be made without riddle: say --as marginal='Needy(…).q_sample'" in (
        tasks["Needy.q_sample"].why
    )
    assert not tasks["Cuda.q_sample"].why
    assert tasks["MyScheduler"].roles == ("scheduler",)
    assert tasks["MyScheduler"].facts["variance"] == "learned_range"
    assert isinstance(tasks["EMA"].function, type)
    assert tasks["TimeEmbedding()"].function.dim == 32


def test_an_object_of_the_file_is_taken() -> None:
    _, tasks = module(CLASSES + "d = GaussianDiffusion(nn.Identity(), timesteps=9)")
    one = tasks["GaussianDiffusion.p_sample"]
    assert len(one.facts["betas"]) == 9
    assert one.function(lambda x, t: x + t, 3, 4) == 7


def test_a_network_of_the_module_is_an_argument() -> None:
    names: dict[str, Any] = {"net": nn.Identity(), "__name__": "strange"}
    exec("def p_sample(x, t): return net(x)\ndef f(model, x): return net(x)", names)
    step = with_model(names["p_sample"], None, names)
    assert step(lambda x: x + 1, 5, 0) == 6
    assert isinstance(names["net"], nn.Identity)
    assert with_model(names["f"], None, names) is names["f"]


def test_a_schedule_that_is_a_function() -> None:
    names: dict[str, Any] = {"__name__": "strange", "torch": torch}
    exec(
        "T = 30\n"
        "def linear_beta_schedule(timesteps): return torch.linspace(1e-3, 0.3, timesteps)\n"
        "def betas_of(a, b): return 3\n"
        "def q_sample(x, t): return x",
        names,
    )
    made = Module(names, Asked(), "strange")
    assert made.table is not None
    assert made.table.name == "linear_beta_schedule()"
    assert made.steps == 30
    assert [t.name for t in made.tasks()] == ["linear_beta_schedule()", "q_sample"]


# --- functions whose names say nothing


def forward(x: Tensor, t: Any) -> Tensor:
    bar = BARS[t].reshape(-1, 1)
    return bar * x + (1 - bar) * torch.randn_like(x)


def test_what_looks_like_a_forward_process() -> None:
    assert looks_forward(forward, 50, {})
    assert looks_forward(lambda t, x: forward(x, t), 50, {})
    assert not looks_forward(lambda x, t: x, 50, {})
    assert not looks_forward(lambda x, t: x + t[:, None], 50, {})
    assert not looks_forward(lambda x: x, 50, {})


def test_what_may_be_called_to_see() -> None:
    def writes(x: Any, t: Any) -> Any:
        return [torch.save(x, t) for _ in range(1)]

    def many(a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
        pass

    assert could_be_tried(forward)
    assert not could_be_tried(writes)
    assert not could_be_tried(many)
    assert not could_be_tried(len)
