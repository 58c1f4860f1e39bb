"""What a checker of diffusion code is to be judged by: right code, real bugs, and what only looks
like one.

The ids are those of the list of real bugs (A1 … A35) and of what was reported as one but is none
(N1 … N8). Each specimen is a correct module with one transformation. Where a report can be read in
more than one way there are as many specimens.
"""

from typing import NamedTuple

from specimens.loading import Specimen

STYLES = {
    "plain": "plain",
    "karras": "plain",
    "ddpm": "class",
    "processes": "class",
    "schedulers": "scheduler",
}


class Subject(NamedTuple):
    """Something that can be checked in a correct module."""

    module: str
    subject: str
    role: str
    given: dict[str, str]


def _of(module: str, subject: str, role: str, **given: str) -> Subject:
    return Subject(module, subject, role, given)


def _plain(subject: str, role: str, **given: str) -> Subject:
    return _of("plain", subject, role, **({"betas": "betas"} | given))


def _ddpm(subject: str, role: str, arguments: str = "", **given: str) -> Subject:
    made = f"GaussianDiffusion({arguments})"
    return _of("ddpm", subject.replace("SELF", made), role, **({"betas": f"{made}.betas"} | given))


def _scheduler(subject: str, role: str, made: str = "DDIMScheduler()", **given: str) -> Subject:
    facts = {"betas": f"{made}.betas"} | given
    return _of("schedulers", subject.replace("SELF", made), role, **facts)


EPS, X_0, V = {"predicts": "eps"}, {"predicts": "x_0"}, {"predicts": "v"}

SUBJECTS: dict[str, Subject] = {
    # plain functions and tables
    "betas": _of(
        "plain", "make_beta_schedule('linear', 100)", "schedule", claims="linear", gives="betas"
    ),
    "betas_sigmoid": _of(
        "plain",
        "make_beta_schedule('sigmoid', 100, 1e-5, 1e-2)",
        "schedule",
        claims="sigmoid",
        gives="betas",
    ),
    "betas_cosine": _of(
        "plain", "make_beta_schedule('cosine', 1000)", "schedule", claims="cosine", gives="betas"
    ),
    "betas_zero": _of(
        "plain",
        "zero_terminal_betas(1000)",
        "schedule",
        claims="zero_terminal_snr",
        gives="betas",
    ),
    "bars_cosine": _of(
        "plain",
        "cosine_tables(1000)[1]",
        "schedule",
        claims="cosine",
        gives="alphas_cumprod",
        betas="cosine_tables(1000)[0]",
    ),
    "variance_cosine": _of(
        "plain",
        "cosine_tables(1000)[2]",
        "schedule",
        claims="cosine",
        gives="posterior_variance",
        betas="cosine_tables(1000)[0]",
    ),
    "forward_step": _plain("forward_step", "transition"),
    "forward_process": _plain("forward_process", "transition"),
    "q_sample": _plain("q_sample", "marginal"),
    "q_sample_low": _plain("q_sample", "marginal", dtype="torch.bfloat16"),
    "q_mean_std": _plain("q_mean_std", "marginal", gives="mean_std"),
    "posterior": _plain("q_posterior_mean_variance", "posterior"),
    "eps_loss": _plain("noise_estimation_loss", "loss", **EPS),
    "x_0_loss": _plain("x_0_estimation_loss", "loss", **X_0),
    "v_loss": _plain("v_estimation_loss", "loss", **V),
    "score_loss": _plain("score_estimation_loss", "loss", predicts="score"),
    "image_loss": _plain("image_loss", "loss", data_range="(0.0, 1.0)", **EPS),
    "min_snr": _plain("min_snr_weight", "weighting", claims="min_snr", gamma="5.0", **EPS),
    "min_snr_zero": _plain(
        "min_snr_weight_zero",
        "weighting",
        betas="betas_zero",
        claims="min_snr",
        gamma="5.0",
        **EPS,
    ),
    "debiased_zero": _plain("debiased_weight_zero", "weighting", betas="betas_zero"),
    "weighted_loss": _plain("weighted_loss", "loss", claims="min_snr", gamma="5.0", **EPS),
    "sample_time": _plain("sample_time", "time_sampling"),
    "p_sample": _plain("p_sample", "step", **EPS),
    "p_sample_learned": _plain("p_sample_learned", "step", variance="learned_range", **EPS),
    "p_sample_clipped": _plain("p_sample_clipped", "step", clip="3.0", **EPS),
    "p_sample_thresholded": _plain("p_sample_thresholded", "step", **EPS),
    "p_sample_loop": _plain("p_sample_loop", "sampler", **EPS),
    "img2img": _plain("img2img", "sampler", **EPS),
    "ddim_times": _plain("ddim_timesteps(50)", "schedule", gives="timesteps", steps="50"),
    "ddim_times_many": _plain("ddim_timesteps(500)", "schedule", gives="timesteps", steps="500"),
    "ddim_step": _plain("ddim_step", "step", **EPS),
    "ddim_step_x_0": _plain("ddim_step_x_0", "step", **X_0),
    "ddim_loop": _plain("ddim_sample_loop", "sampler", **EPS),
    "cfg": _plain("cfg", "guidance", **EPS),
    "classifier": _plain("p_sample_classifier", "guidance", **EPS),
    "ema": _of("plain", "EMA", "ema", decay="0.999"),
    "embedding": _of("plain", "time_embedding", "embedding"),
    "langevin_step": _plain("langevin_step", "langevin"),
    "prior_kl": _plain("prior_kl", "likelihood"),
    "bound_term": _plain("bound_term", "likelihood", **EPS),
    # plain functions in σ
    "ve_sample": _of("karras", "ve_sample", "marginal", scale="ve"),
    "karras_sigmas": _of(
        "karras", "karras_sigmas(40)", "schedule", claims="karras", gives="sigmas"
    ),
    "dsm": _of("karras", "denoising_score_matching", "loss", predicts="score", scale="ve"),
    "euler_sample": _of("karras", "euler_sample", "sampler", predicts="x_0", scale="ve"),
    "heun_sample": _of("karras", "heun_sample", "sampler", predicts="x_0", scale="ve"),
    "dpmpp_sample": _of("karras", "dpmpp_2m_sample", "sampler", predicts="x_0", scale="ve"),
    "langevin": _of("karras", "langevin", "langevin", scale="ve"),
    "annealed": _of("karras", "annealed_langevin", "langevin", scale="ve"),
    "vp_sigma_prime": _of(
        "karras", "vp_sigma_prime", "schedule", gives="sigma_prime", sigma="vp_sigma"
    ),
    "vp_flow": _of(
        "karras", "vp_flow_sample", "sampler", predicts="x_0", scale="vp", sigma="vp_sigma"
    ),
    "flow_times": _of("karras", "flow_times", "time_sampling", scale="flow"),
    "flow_mix": _of("karras", "flow_mix", "marginal", scale="flow"),
    "flow_loss": _of("karras", "flow_loss", "loss", predicts="flow", scale="flow"),
    "flow_sample": _of("karras", "flow_sample", "sampler", predicts="flow", scale="flow"),
    # a class as in the papers' code
    "G.betas": _ddpm("SELF.betas", "schedule", "timesteps=100", claims="linear", gives="betas"),
    "G.bars_cosine": _ddpm(
        "SELF.alphas_cumprod",
        "schedule",
        "schedule='cosine'",
        claims="cosine",
        gives="alphas_cumprod",
    ),
    "G.betas_cosine": _ddpm(
        "SELF.betas", "schedule", "schedule='cosine'", claims="cosine", gives="betas"
    ),
    "G.betas_zero": _ddpm(
        "SELF.betas", "schedule", "schedule='zero'", claims="zero_terminal_snr", gives="betas"
    ),
    "G.q_step": _ddpm("SELF.q_step", "transition"),
    "G.q_mean_variance": _ddpm("SELF.q_mean_variance", "marginal", gives="mean_variance"),
    "G.q_sample": _ddpm("SELF.q_sample", "marginal"),
    "G.q_sample_low": _ddpm("SELF.q_sample", "marginal", dtype="torch.bfloat16"),
    "G.posterior": _ddpm("SELF.q_posterior_mean_variance", "posterior"),
    "G.posterior_cosine": _ddpm(
        "SELF.q_posterior_mean_variance", "posterior", "schedule='cosine'", claims="cosine"
    ),
    "G.p_sample": _ddpm("SELF.p_sample", "step", **EPS),
    "G.posterior_100": _ddpm("SELF.q_posterior_mean_variance", "posterior", "timesteps=100"),
    "G.p_sample_100": _ddpm("SELF.p_sample", "step", "timesteps=100", **EPS),
    "G.p_sample_loop_100": _ddpm("SELF.p_sample_loop", "sampler", "timesteps=100", **EPS),
    "G.p_sample_v": _ddpm("SELF.p_sample", "step", "objective='v'", **V),
    "G.p_sample_clipped": _ddpm("SELF.p_sample", "step", "clip=3.0", clip="3.0", **EPS),
    "G.p_sample_threshold": _ddpm("SELF.p_sample", "step", "threshold=0.9", **EPS),
    "G.p_sample_learned": _ddpm(
        "SELF.p_sample", "step", "learned_range=True", variance="learned_range", **EPS
    ),
    "G.p_mean_variance_learned": _ddpm(
        "SELF.p_mean_variance", "posterior", "learned_range=True", variance="learned_range", **EPS
    ),
    "G.p_sample_loop": _ddpm("SELF.p_sample_loop", "sampler", **EPS),
    "G.interpolate": _ddpm("SELF.interpolate", "sampler", **EPS),
    "G.ddim": _ddpm("SELF.ddim_sample", "sampler", **EPS),
    "G.ddim_30": _ddpm(
        "lambda net, shape: SELF.ddim_sample(net, shape, steps=30)", "sampler", steps="30", **EPS
    ),
    "G.ddim_x_0": _ddpm("SELF.ddim_sample", "sampler", "objective='x_0'", **X_0),
    "G.ddim_encode": _ddpm("SELF.ddim_encode", "sampler", **EPS),
    "G.losses": _ddpm("SELF.p_losses", "loss", **EPS),
    "G.losses_x_0": _ddpm("SELF.p_losses", "loss", "objective='x_0'", **X_0),
    "G.losses_v": _ddpm("SELF.p_losses", "loss", "objective='v'", **V),
    "G.losses_score": _ddpm("SELF.p_losses", "loss", "objective='score'", predicts="score"),
    "G.losses_min_snr": _ddpm(
        "SELF.p_losses", "loss", "gamma=5.0", claims="min_snr", gamma="5.0", **EPS
    ),
    "G.forward": _ddpm("SELF.forward", "loss", data_range="(0.0, 1.0)", **EPS),
    "G.weight": _ddpm(
        "lambda t: SELF.loss_weight[t]",
        "weighting",
        "gamma=5.0",
        claims="min_snr",
        gamma="5.0",
        **EPS,
    ),
    "G.weight_v": _ddpm(
        "lambda t: SELF.loss_weight[t]",
        "weighting",
        "objective='v', gamma=5.0",
        claims="min_snr",
        gamma="5.0",
        **V,
    ),
    "G.weight_zero": _ddpm(
        "lambda t: SELF.loss_weight[t]",
        "weighting",
        "schedule='zero', gamma=5.0",
        claims="min_snr",
        gamma="5.0",
        **EPS,
    ),
    "G.times": _ddpm("SELF.times", "time_sampling"),
    "G.guided": _ddpm(
        "lambda net, gradient, x, t: GaussianDiffusion(guide=gradient).p_sample(net, x, t)",
        "guidance",
        **EPS,
    ),
    "G.cfg": _of("ddpm", "ClassifierFree", "guidance", **EPS),
    "G.ema": _of("ddpm", "EMA", "ema", decay="0.995"),
    "G.embedding": _of("ddpm", "TimeEmbedding()", "embedding"),
    "G.prior_kl": _ddpm("SELF.prior_kl", "likelihood"),
    "G.bound_term": _ddpm("SELF.bound_term", "likelihood", **EPS),
    # classes in continuous time
    "VE.marginal": _of("processes", "VESDE().marginal_prob", "marginal", scale="ve"),
    "VE.perturb": _of("processes", "VESDE().perturb", "marginal", scale="ve"),
    "VE.score_loss": _of("processes", "VESDE().score_loss", "loss", predicts="score", scale="ve"),
    "VE.correct": _of("processes", "VESDE().correct", "langevin", scale="ve"),
    "VP.marginal": _of("processes", "VPSDE().marginal_prob", "marginal", scale="vp"),
    "VP.perturb": _of("processes", "VPSDE().perturb", "marginal", scale="vp"),
    "VP.sigma_prime": _of(
        "processes",
        "VPSDE().sigma_prime",
        "schedule",
        gives="sigma_prime",
        sigma="VPSDE().sigma",
    ),
    "VP.flow_sample": _of(
        "processes",
        "VPSDE().flow_sample",
        "sampler",
        predicts="x_0",
        scale="vp",
        sigma="VPSDE().sigma",
    ),
    "Heun.one_step": _of("processes", "HeunSampler().one_step", "step", predicts="x_0", scale="ve"),
    "Heun": _of(
        "processes",
        "HeunSampler()",
        "sampler",
        predicts="x_0",
        scale="ve",
        sigmas="HeunSampler().levels",
    ),
    "Flow.times": _of("processes", "RectifiedFlow().times", "time_sampling", scale="flow"),
    "Flow.mix": _of("processes", "RectifiedFlow().mix", "marginal", scale="flow"),
    "Flow.loss": _of("processes", "RectifiedFlow().loss", "loss", predicts="flow", scale="flow"),
    "Flow.sample": _of(
        "processes", "RectifiedFlow().sample", "sampler", predicts="flow", scale="flow"
    ),
    "Annealed.move": _of(
        "processes", "Annealed(torch.tensor([1.0, 0.5, 0.1])).move", "langevin", scale="ve"
    ),
    # schedulers
    "S.betas": _scheduler(
        "SELF.betas",
        "schedule",
        "DDPMScheduler(num_train_timesteps=100)",
        claims="linear",
        gives="betas",
    ),
    "S.betas_zero": _scheduler(
        "SELF.betas",
        "schedule",
        "DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear', "
        "rescale_betas_zero_snr=True)",
        claims="zero_terminal_snr",
        gives="betas",
    ),
    "S.bars_cosine": _scheduler(
        "SELF.alphas_cumprod",
        "schedule",
        "DDIMScheduler(beta_schedule='cosine')",
        claims="cosine",
        gives="alphas_cumprod",
    ),
    "S.add_noise": _scheduler("SELF.add_noise", "marginal"),
    "S.add_noise_low": _scheduler("SELF.add_noise", "marginal", dtype="torch.bfloat16"),
    "S.velocity": _scheduler("SELF.get_velocity", "marginal", gives="v"),
    "S.ve_add_noise": _scheduler("SELF.add_noise", "marginal", "EulerScheduler()", scale="ve"),
    "DDPM": _scheduler("SELF", "scheduler", "DDPMScheduler()", **EPS),
    "DDPM_v": _scheduler("SELF", "scheduler", "DDPMScheduler(prediction_type='v_prediction')", **V),
    "DDPM_cosine": _scheduler(
        "SELF", "scheduler", "DDPMScheduler(beta_schedule='cosine')", claims="cosine", **EPS
    ),
    "DDPM_cosine_v": _scheduler(
        "SELF",
        "scheduler",
        "DDPMScheduler(beta_schedule='cosine', prediction_type='v_prediction')",
        claims="cosine",
        **V,
    ),
    "DDPM_linspace": _scheduler(
        "SELF", "scheduler", "DDPMScheduler(timestep_spacing='linspace')", **EPS
    ),
    "DDPM_learned": _scheduler(
        "SELF", "scheduler", "LearnedRangeScheduler()", variance="learned_range", **EPS
    ),
    "DDPM_clipped": _scheduler(
        "SELF", "scheduler", "DDPMScheduler(clip_sample_range=3.0)", clip="3.0", **EPS
    ),
    "DDIM": _scheduler("SELF", "scheduler", **EPS),
    "DDIM_100": _scheduler("SELF", "scheduler", "DDIMScheduler(num_train_timesteps=100)", **EPS),
    "DDIM_v": _scheduler("SELF", "scheduler", "DDIMScheduler(prediction_type='v_prediction')", **V),
    "DDIM_x_0": _scheduler("SELF", "scheduler", "DDIMScheduler(prediction_type='sample')", **X_0),
    "DDIM_linspace": _scheduler(
        "SELF", "scheduler", "DDIMScheduler(timestep_spacing='linspace')", **EPS
    ),
    "DDIM_threshold": _scheduler(
        "SELF", "scheduler", "DDIMScheduler(thresholding_ratio=0.9)", **EPS
    ),
    "Euler": _scheduler("SELF", "scheduler", "EulerScheduler()", scale="ve", **EPS),
    "Heun2": _scheduler("SELF", "scheduler", "HeunScheduler()", scale="ve", **EPS),
    "DPM": _scheduler("SELF", "scheduler", "DPMSolverScheduler()", **EPS),
    "S.generate": _scheduler("lambda net, shape: generate(net, SELF, shape)", "sampler", **EPS),
    "S.generate_ddpm": _scheduler(
        "lambda net, shape: generate(net, SELF, shape, 1000)", "sampler", "DDPMScheduler()", **EPS
    ),
    "S.img2img": _scheduler("lambda net, images: img2img(net, SELF, images)", "sampler", **EPS),
    "S.guided": _scheduler("guided_output", "guidance", **EPS),
    "S.weights": _scheduler(
        "lambda t: snr_weights(SELF, t)", "weighting", claims="min_snr", gamma="5.0", **EPS
    ),
    "S.weights_zero": _scheduler(
        "lambda t: snr_weights(SELF, t)",
        "weighting",
        "DDIMScheduler(rescale_betas_zero_snr=True)",
        claims="min_snr",
        gamma="5.0",
        **EPS,
    ),
    "S.loss": _scheduler(
        "lambda net, x_0, t, noise: training_loss(net, SELF, x_0, t, noise)", "loss", **EPS
    ),
    "S.loss_x_0": _scheduler(
        "lambda net, x_0, t, noise: training_loss(net, SELF, x_0, t, noise)",
        "loss",
        "DDIMScheduler(prediction_type='sample')",
        **X_0,
    ),
    "S.loss_v": _scheduler(
        "lambda net, x_0, t, noise: training_loss(net, SELF, x_0, t, noise)",
        "loss",
        "DDIMScheduler(prediction_type='v_prediction')",
        **V,
    ),
    "S.loss_min_snr": _scheduler(
        "lambda net, x_0, t, noise: training_loss(net, SELF, x_0, t, noise, 5.0)",
        "loss",
        claims="min_snr",
        gamma="5.0",
        **EPS,
    ),
    "S.train_step": _scheduler(
        "lambda net, pixels, t, noise: train_step(net, SELF, pixels, t, noise)",
        "loss",
        data_range="(0.0, 1.0)",
        **EPS,
    ),
    "S.times": _scheduler("lambda count: draw_timesteps(SELF, count)", "time_sampling"),
    "S.embedding": _of("schedulers", "timestep_embedding", "embedding"),
    "S.ema": _of("schedulers", "EMAModel", "ema", decay="0.9999"),
    "S.timesteps": _scheduler(
        "lambda n: (s := SELF, s.set_timesteps(n), s.timesteps)[-1]",
        "schedule",
        "DDIMScheduler(timestep_spacing='linspace')",
        gives="timesteps",
    ),
}

Edit = tuple[str, str]


def _bug(id: str, subject: str, note: str, *edits: Edit) -> Specimen:
    made = SUBJECTS[subject]
    return Specimen(
        id, STYLES[made.module], made.module, edits, made.subject, made.role, made.given, note
    )


def right_of(specimen: Specimen) -> Specimen:
    """The correct code that a specimen was made from."""
    return specimen._replace(id="right", edits=(), note="")


RIGHT = [_bug("right", name, "") for name in SUBJECTS]

BUGS = [
    # --- one step forward
    _bug(
        "A1",
        "forward_step",
        "√β·U(0, 1) in place of √β·N(0, 1)",
        ("torch.sqrt(beta_t) * torch.randn_like(x)", "torch.sqrt(beta_t) * torch.rand_like(x)"),
    ),
    _bug(
        "A1",
        "forward_process",
        "√β·U(0, 1) in place of √β·N(0, 1), all along the chain",
        ("z = torch.randn_like(x_start)", "z = torch.rand_like(x_start)"),
    ),
    _bug(
        "A1",
        "q_sample",
        "uniform noise in the marginal",
        (
            "        noise = torch.randn_like(x_0)\n    keep",
            "        noise = torch.rand_like(x_0)\n    keep",
        ),
    ),
    _bug(
        "A1",
        "G.q_step",
        "√β·U(0, 1) in place of √β·N(0, 1)",
        ("noise = torch.randn_like(x) if noise", "noise = torch.rand(x.shape) if noise"),
    ),
    _bug(
        "A1",
        "DDPM",
        "the reverse step's noise is uniform",
        ("noise = torch.randn(sample.shape", "noise = torch.rand(sample.shape"),
    ),
    _bug(
        "A2",
        "forward_step",
        "β·ε in place of √β·ε",
        ("torch.sqrt(beta_t) * torch", "beta_t * torch"),
    ),
    _bug(
        "A2",
        "forward_process",
        "β·ε in place of √β·ε, all along the chain",
        ("torch.sqrt(betas[n]) * z", "betas[n] * z"),
    ),
    _bug("A2", "G.q_step", "β·ε in place of √β·ε", ("beta.sqrt() * noise", "beta * noise")),
    _bug(
        "A3",
        "q_sample",
        "the noise that is given is thrown away for a new one",
        (
            "    if noise is None:\n        noise = torch.randn_like(x_0)\n    keep",
            "    noise = torch.randn_like(x_0)\n    keep",
        ),
    ),
    _bug(
        "A3",
        "forward_process",
        "a third argument is taken and never looked at",
        ("torch.randn_like(x_start) if noise is None else noise[n]", "torch.randn_like(x_start)"),
    ),
    _bug(
        "A3",
        "G.q_sample",
        "the noise that is given is checked and not used",
        ("sigma * noise).to", "sigma * torch.randn_like(x_start)).to"),
    ),
    _bug(
        "A3",
        "S.add_noise",
        "the noise that is given is not used, a new one is",
        (
            "(1 - bar).sqrt() * noise\n        return noisy",
            "(1 - bar).sqrt() * torch.randn_like(noise)\n        return noisy",
        ),
    ),
    _bug(
        "A3",
        "G.losses",
        "the loss draws its own noise, also where one is given",
        (
            "noise = torch.randn_like(x_start) if noise is None else noise",
            "noise = torch.randn_like(x_start)",
        ),
    ),
    # --- losses
    _bug(
        "A4",
        "score_loss",
        "the score's target is +ε/σ, not −ε/σ",
        ("target = -noise / spread", "target = noise / spread"),
    ),
    _bug(
        "A4",
        "dsm",
        "the target is (x_t − x_0)/σ², not its negative",
        ("target = -(noisy - x_0)", "target = (noisy - x_0)"),
    ),
    _bug(
        "A4",
        "G.losses_score",
        "∇log q(x_t | x_0) without its minus sign",
        ("return -apart / self", "return apart / self"),
    ),
    _bug(
        "A4",
        "VE.score_loss",
        "ε/σ is added where it must be taken away",
        ("target = -noise / std", "target = noise / std"),
    ),
    _bug(
        "A5",
        "flow_times",
        "t ~ N(0, 1) in place of U(0, 1)",
        ("return torch.rand(n)", "return torch.randn(n)"),
    ),
    _bug(
        "A5",
        "flow_loss",
        "t ~ N(0, 1) inside the loss",
        ("return torch.rand(n)", "return torch.randn(n)"),
    ),
    _bug(
        "A5",
        "Flow.times",
        "t ~ N(0, 1) in place of U(0, 1)",
        ("return torch.rand(count)", "return torch.randn(count)"),
    ),
    _bug(
        "A5",
        "Flow.loss",
        "t ~ N(0, 1) inside the loss",
        ("self.times(len(data))", "torch.randn(len(data))"),
    ),
    # --- the marginal
    _bug(
        "A6",
        "q_mean_std",
        "std = √(1 − ᾱ)·x_0",
        ("return mean, std.expand_as(x_0)", "return mean, std * x_0"),
    ),
    _bug(
        "A6",
        "q_sample",
        "the noise is multiplied by x_0",
        ("spread * noise", "spread * x_0 * noise"),
    ),
    _bug(
        "A6",
        "G.q_sample",
        "the noise is multiplied by x_0",
        ("sigma * noise", "sigma * x_start * noise"),
    ),
    _bug(
        "A6",
        "VP.marginal",
        "std = √(1 − ᾱ)·x_0",
        (
            "return torch.exp(-0.5 * area) * x_0, std.expand_as(x_0)",
            "return torch.exp(-0.5 * area) * x_0, std * x_0",
        ),
    ),
    _bug(
        "A6",
        "S.add_noise",
        "the noise is multiplied by x_0",
        (
            "(1 - bar).sqrt() * noise\n        return noisy",
            "(1 - bar).sqrt() * original_samples * noise\n        return noisy",
        ),
    ),
    _bug(
        "A7",
        "ve_sample",
        "√ᾱ·x_0 + √(1 − ᾱ)·ε with ᾱ = 1/(1 + σ²), where x_0 + σ·ε is claimed",
        ("return x_0 + s * noise", "return (x_0 + s * noise) / torch.sqrt(1 + s**2)"),
    ),
    _bug(
        "A7",
        "VE.perturb",
        "√ᾱ·x_0 + √(1 − ᾱ)·ε where x_0 + σ·ε is claimed",
        (
            "        return mean + std * noise\n\n    def sde",
            "        bar = 1 / (1 + std**2)\n"
            "        return bar.sqrt() * mean + (1 - bar).sqrt() * noise\n\n    def sde",
        ),
    ),
    _bug(
        "A7",
        "S.ve_add_noise",
        "√ᾱ·x_0 + √(1 − ᾱ)·ε in a scheduler whose samples are x_0 + σ·ε",
        (
            "        sigma = like(self.sigma_of(timesteps), original_samples)\n"
            "        return (original_samples + sigma * noise).to(original_samples.dtype)\n",
            "        return super().add_noise(original_samples, noise, timesteps)\n",
        ),
    ),
    # --- which level
    _bug(
        "A8",
        "img2img",
        "noised to index t, the first denoising is that of t − 1",
        ("reversed(range(start + 1))", "reversed(range(start))"),
    ),
    _bug(
        "A8",
        "img2img",
        "noised to index t + 1, denoised from t",
        ("torch.full((len(x_0),), start))", "torch.full((len(x_0),), start + 1))"),
    ),
    _bug(
        "A8",
        "G.interpolate",
        "noised to index t, the first denoising is that of t − 1",
        ("reversed(range(t + 1))", "reversed(range(t))"),
    ),
    _bug(
        "A8",
        "S.img2img",
        "noised to a level that is one step noisier than the first to be denoised",
        ("noise, times[:1].expand", "noise, scheduler.timesteps[begin - 1].expand"),
    ),
    _bug(
        "A9",
        "image_loss",
        "data from 0 … 1 moved to −1 … 1 twice, which is −3 … 1",
        ("x_0 = normalise(images)", "x_0 = normalise(normalise(images))"),
    ),
    _bug(
        "A9",
        "image_loss",
        "moved to −1 … 1 after the noise was added, noise and all",
        (
            "    x_0 = normalise(images)\n    x_t = q_sample(x_0, t, noise)",
            "    x_t = normalise(q_sample(images, t, noise))",
        ),
    ),
    _bug(
        "A9",
        "G.forward",
        "moved to −1 … 1 by the caller and again by what it calls",
        (
            "noise = torch.randn_like(x_start) if noise is None else noise\n        x_t = self",
            "x_start = x_start * 2 - 1\n        noise = torch.randn_like(x_start) "
            "if noise is None else noise\n        x_t = self",
        ),
    ),
    _bug(
        "A9",
        "S.train_step",
        "moved to −1 … 1 twice",
        (
            "    noisy = scheduler.add_noise(x_0",
            "    x_0 = 2 * x_0 - 1\n    noisy = scheduler.add_noise(x_0",
        ),
    ),
    # --- tables
    _bug(
        "A10",
        "bars_cosine",
        "the table holds ᾱ_0 = 1 … ᾱ_{T−1}, not ᾱ_1 … ᾱ_T",
        ("bars = curve[1:]", "bars = curve[:-1]"),
    ),
    _bug(
        "A10",
        "variance_cosine",
        "1 − ᾱ_0 = 0 is divided by",
        ("bars = curve[1:]", "bars = curve[:-1]"),
    ),
    _bug(
        "A10",
        "G.bars_cosine",
        "the table holds ᾱ_0 = 1 … ᾱ_{T−1}, not ᾱ_1 … ᾱ_T",
        ("bars = bars_with_data[1:]", "bars = bars_with_data[:-1]"),
    ),
    _bug(
        "A10",
        "G.posterior_cosine",
        "1 − ᾱ_0 = 0 is divided by",
        ("bars = bars_with_data[1:]", "bars = bars_with_data[:-1]"),
    ),
    _bug(
        "A10",
        "S.bars_cosine",
        "the table holds ᾱ_0 = 1 … ᾱ_{T−1}, not ᾱ_1 … ᾱ_T",
        ("alphas_cumprod = bars_with_data[1:]", "alphas_cumprod = bars_with_data[:-1]"),
    ),
    _bug(
        "A10",
        "DDPM_cosine",
        "the last step divides by 1 − ᾱ_0 = 0",
        ("alphas_cumprod = bars_with_data[1:]", "alphas_cumprod = bars_with_data[:-1]"),
    ),
    _bug(
        "A11",
        "posterior",
        "ᾱ_{t−1} is ᾱ_t, and 1 at the end: the 1 was put behind the table",
        (
            "torch.cat([torch.ones(1), alphas_prod[:-1]], 0)",
            "torch.cat([alphas_prod[:-1], torch.ones(1)], 0)",
        ),
    ),
    _bug(
        "A11",
        "p_sample_clipped",
        "β̃ and μ̃ from a ᾱ_{t−1} with its 1 at the wrong end",
        (
            "torch.cat([torch.ones(1), alphas_prod[:-1]], 0)",
            "torch.cat([alphas_prod[:-1], torch.ones(1)], 0)",
        ),
    ),
    _bug(
        "A11",
        "G.posterior",
        "ᾱ_{t−1} is ᾱ_t, and 1 at the end: padded on the right",
        ("pad(bars[:-1], (1, 0), value", "pad(bars[:-1], (0, 1), value"),
    ),
    _bug(
        "A11",
        "G.posterior_100",
        "ᾱ_{t−1} is ᾱ_t, and 1 at the end: padded on the right",
        ("pad(bars[:-1], (1, 0), value", "pad(bars[:-1], (0, 1), value"),
    ),
    _bug(
        "A12",
        "ddim_loop",
        "visits 981, 961, …, 1 of 0 … 999: starts where no pure noise is",
        (
            "return torch.linspace(n_steps - 1, 0, n).round().long().tolist()",
            "return [t + 1 for t in range(0, n_steps, n_steps // n)][::-1]",
        ),
    ),
    _bug(
        "A12",
        "ddim_times",
        "980, 960, …, 0: the noisiest level is not visited",
        (
            "return torch.linspace(n_steps - 1, 0, n).round().long().tolist()",
            "return list(range(0, n_steps, n_steps // n))[::-1]",
        ),
    ),
    _bug(
        "A12",
        "G.ddim",
        "starts at index 990 of 999",
        (
            "torch.linspace(-1, self.timesteps - 1, steps + 1).round().int().tolist()[::-1]",
            "[*range(0, self.timesteps, self.timesteps // steps)][::-1] + [-1]",
        ),
    ),
    _bug(
        "A12",
        "DDIM",
        "timesteps 981, 961, …, 1",
        (
            "            ratio = self.num_train_timesteps / num_inference_steps\n"
            "            times = np.arange(num_inference_steps, 0, -1) * ratio - 1",
            "            ratio = self.num_train_timesteps // num_inference_steps\n"
            "            times = np.arange(num_inference_steps)[::-1] * ratio + 1",
        ),
    ),
    _bug(
        "A12",
        "betas_zero",
        "ᾱ_T = 0.005 where 0 is claimed: the curve is stretched but not moved",
        ("root = (root - root[-1]) * root[0] / (root[0] - root[-1])", "root = root / root[0]"),
    ),
    _bug(
        "A12",
        "S.betas_zero",
        "ᾱ_T ≠ 0: the rescaled table is made and not kept",
        ("self.betas = rescale_zero", "rescale_zero"),
    ),
    _bug(
        "A13",
        "betas",
        "β from 1e-4 to 0.02 in 100 steps: ᾱ_T = 0.36",
        ("scale = 1000 / n_timesteps", "scale = 1.0"),
    ),
    _bug(
        "A13",
        "betas_sigmoid",
        "β from 1e-5 to 0.01 in 100 steps: ᾱ_T = 0.6",
        ("scale = 1000 / n_timesteps", "scale = 1.0"),
    ),
    _bug(
        "A13",
        "G.betas",
        "β from 1e-4 to 0.02 in 100 steps: ᾱ_T = 0.36",
        ("ratio = 1000 / timesteps", "ratio = 1.0"),
    ),
    _bug(
        "A13",
        "S.betas",
        "β from 1e-4 to 0.02 in 100 steps: ᾱ_T = 0.36",
        ("factor = 1000 / num_train_timesteps", "factor = 1.0"),
    ),
    _bug(
        "A14",
        "vp_sigma_prime",
        "σ′ = β·(σ + 1/σ), twice what it is",
        (
            "return 0.5 * (beta_low + beta_more * t) * (sigma + 1 / sigma)",
            "return (beta_low + beta_more * t) * (sigma + 1 / sigma)",
        ),
    ),
    _bug(
        "A14",
        "vp_flow",
        "the flow's σ′ is twice what it is",
        (
            "return 0.5 * (beta_low + beta_more * t) * (sigma + 1 / sigma)",
            "return (beta_low + beta_more * t) * (sigma + 1 / sigma)",
        ),
    ),
    _bug(
        "A14",
        "VP.sigma_prime",
        "σ′ = β·(σ² + 1)/σ, twice what it is",
        ("/ (2 * self.sigma(t))", "/ self.sigma(t)"),
    ),
    _bug(
        "A14",
        "VP.flow_sample",
        "the flow's σ′ is twice what it is",
        ("/ (2 * self.sigma(t))", "/ self.sigma(t)"),
    ),
    # --- the variance of a reverse step
    _bug(
        "A15",
        "p_sample_learned",
        "m·β + (1 − m)·β̃ in place of exp(m·log β + (1 − m)·log β̃)",
        (
            "std = torch.exp(0.5 * (part * high + (1 - part) * low))",
            "std = torch.sqrt(part * high.exp() + (1 - part) * low.exp())",
        ),
    ),
    _bug(
        "A15",
        "G.p_mean_variance_learned",
        "m·β + (1 − m)·β̃ in place of exp(m·log β + (1 − m)·log β̃)",
        (
            "            log_variance = part * high + (1 - part) * low\n"
            "            variance = log_variance.exp()",
            "            variance = part * high.exp() + (1 - part) * low.exp()\n"
            "            log_variance = variance.log()",
        ),
    ),
    _bug(
        "A15",
        "G.p_sample_learned",
        "m·β + (1 − m)·β̃ in place of exp(m·log β + (1 − m)·log β̃)",
        (
            "            log_variance = part * high + (1 - part) * low\n"
            "            variance = log_variance.exp()",
            "            variance = part * high.exp() + (1 - part) * low.exp()\n"
            "            log_variance = variance.log()",
        ),
    ),
    _bug(
        "A15",
        "DDPM_learned",
        "m·β + (1 − m)·β̃ in place of exp(m·log β + (1 − m)·log β̃)",
        (
            "return part * current_beta.log() + (1 - part) * small.log()",
            "return (part * current_beta + (1 - part) * small).log()",
        ),
    ),
    _bug(
        "A15",
        "DDPM_learned",
        "the range's end is β_t of one step, not 1 − ᾱ_t/ᾱ_s of the strided one",
        ("part * current_beta.log()", "part * self.betas[timestep].log()"),
    ),
    _bug(
        "A16",
        "p_sample",
        "std = √(log β̃), which is NaN, in place of exp(½·log β̃)",
        (
            "std = torch.exp(0.5 * extract(reverse_log_variance, t, x))",
            "std = torch.sqrt(extract(reverse_log_variance, t, x))",
        ),
    ),
    _bug(
        "A16",
        "G.p_sample",
        "std = √(log variance), which is NaN",
        ("(0.5 * log_variance).exp() * noise", "log_variance.sqrt() * noise"),
    ),
    _bug(
        "A16",
        "DDPM",
        "std = √(log variance), which is NaN",
        ("torch.exp(0.5 * log_variance) * noise", "log_variance**0.5 * noise"),
    ),
    _bug(
        "A16",
        "G.p_sample_100",
        "std = √(log variance), which is NaN",
        ("(0.5 * log_variance).exp() * noise", "log_variance.sqrt() * noise"),
    ),
    _bug(
        "A16",
        "DDPM_learned",
        "std = √(log variance), which is NaN",
        ("torch.exp(0.5 * log_variance) * noise", "log_variance**0.5 * noise"),
    ),
    # --- weights
    _bug(
        "A17",
        "min_snr",
        "max(SNR, γ)/SNR in place of min(SNR, γ)/SNR",
        ("snr.clamp(max=gamma) / snr", "snr.clamp(min=gamma) / snr"),
    ),
    _bug(
        "A17",
        "weighted_loss",
        "max(SNR, γ)/SNR in the loss",
        ("snr.clamp(max=gamma) / snr", "snr.clamp(min=gamma) / snr"),
    ),
    _bug(
        "A17",
        "G.weight",
        "max(γ/SNR, 1) in place of min(γ/SNR, 1)",
        ("torch.clamp(gamma / snr, max=1.0)", "torch.clamp(gamma / snr, min=1.0)"),
    ),
    _bug(
        "A17",
        "G.weight_v",
        "max(SNR, γ)/(SNR + 1) in place of min(SNR, γ)/(SNR + 1)",
        ("snr.clamp(max=gamma) / (snr + 1)", "snr.clamp(min=gamma) / (snr + 1)"),
    ),
    _bug(
        "A17",
        "G.losses_min_snr",
        "max(γ/SNR, 1) in the loss",
        ("torch.clamp(gamma / snr, max=1.0)", "torch.clamp(gamma / snr, min=1.0)"),
    ),
    _bug(
        "A17",
        "S.weights",
        "max(γ/SNR, 1) in place of min(γ/SNR, 1)",
        ("(gamma / snr).clamp(max=1.0)", "(gamma / snr).clamp(min=1.0)"),
    ),
    _bug(
        "A18",
        "weighted_loss",
        "weights (B, 1) by errors (B,): mean(w)·mean(err)",
        ("(weight * error).mean()", "(weight[:, None] * error).mean()"),
    ),
    _bug(
        "A18",
        "G.losses_min_snr",
        "weights (B, 1) by errors (B,): mean(w)·mean(err)",
        (
            "weight = self.loss_weight.gather(0, t)",
            "weight = self._at(self.loss_weight, t, x_start.flatten(1))",
        ),
    ),
    _bug(
        "A18",
        "S.loss_min_snr",
        "errors (B, 1) by weights (B,): mean(w)·mean(err)",
        (
            "loss = loss.mean(dim=list(range(1, loss.ndim)))",
            "loss = loss.flatten(1).mean(dim=1, keepdim=True)",
        ),
    ),
    _bug(
        "A19",
        "min_snr_zero",
        "min(SNR, γ)/SNR is 0/0 where SNR = 0",
        ("return (gamma / snr).clamp(max=1.0)", "return torch.clamp(snr, max=gamma) / snr"),
    ),
    _bug(
        "A19",
        "debiased_zero",
        "1/√SNR is infinite where SNR = 0",
        ("snr.clamp(min=1e-4, max=1e3)", "snr.clamp(max=1e3)"),
    ),
    _bug(
        "A19",
        "G.weight_zero",
        "min(SNR, γ)/SNR is 0/0 where SNR = 0",
        ("torch.clamp(gamma / snr, max=1.0)", "torch.clamp(snr, max=gamma) / snr"),
    ),
    _bug(
        "A19",
        "S.weights_zero",
        "min(SNR, γ)/SNR is 0/0 where SNR = 0",
        ("(gamma / snr).clamp(max=1.0)", "torch.minimum(snr, torch.full_like(snr, gamma)) / snr"),
    ),
    # --- targets
    _bug(
        "A20",
        "x_0_loss",
        "‖x_t − x̂_0‖² in place of ‖x_0 − x̂_0‖²",
        ("(x_0 - model(x_t, t))", "(x_t - model(x_t, t))"),
    ),
    _bug(
        "A20",
        "G.losses_x_0",
        "the target of x̂_0 is x_t",
        ("target = x_start\n", "target = x_t\n"),
    ),
    _bug("A20", "S.loss_x_0", "the target of x̂_0 is x_t", ("target = x_0\n", "target = noisy\n")),
    _bug(
        "A21",
        "v_loss",
        "the target of v̂ is ε",
        ("    target = velocity(x_0, noise, t)\n    return (target -", "    return (noise -"),
    ),
    _bug(
        "A21",
        "G.losses_v",
        "the target of v̂ is ε",
        ("target = self.v_of(x_start, t, noise)", "target = noise"),
    ),
    _bug(
        "A21",
        "S.loss_v",
        "the target of v̂ is ε",
        ("target = scheduler.get_velocity(x_0, noise, timesteps)", "target = noise"),
    ),
    # --- embeddings
    _bug(
        "A22",
        "embedding",
        "the frequency goes with the place in the batch",
        (
            "torch.arange(half) / (half - 1))",
            "torch.arange(len(t)) / len(t))",
        ),
        (
            "angles = t.float()[:, None] * rates[None, :]",
            "angles = (t.float() * rates)[:, None].expand(-1, half)",
        ),
    ),
    _bug(
        "A22",
        "embedding",
        "(half, B) is read as (B, half): rows hold several items' angles",
        (
            "angles = t.float()[:, None] * rates[None, :]",
            "angles = (t.float()[None, :] * rates[:, None]).reshape(len(t), half)",
        ),
    ),
    _bug(
        "A22",
        "G.embedding",
        "sines in the even rows and cosines in the odd ones: rows are items",
        ("torch.arange(0, self.dim, 2)", "torch.arange(self.dim)"),
        ("table[:, 0::2] = angles.sin()", "table[0::2] = angles[0::2].sin()"),
        ("table[:, 1::2] = angles.cos()", "table[1::2] = angles[1::2].cos()"),
    ),
    _bug(
        "A22",
        "S.embedding",
        "the batch is not the first axis when sines and cosines are joined",
        (
            "return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)",
            "return torch.cat([angles.cos(), angles.sin()], dim=0).reshape(len(timesteps), dim)",
        ),
    ),
    # --- the loop
    _bug(
        "A23",
        "ddim_loop",
        "the model is given i of n, not the timestep that stands there",
        (
            "eps = model(x, torch.full((shape[0],), t))",
            "eps = model(x, torch.full((shape[0],), i))",
        ),
    ),
    _bug(
        "A23",
        "G.ddim_encode",
        "the network is given i of n, not the timestep that stands there",
        (
            "t = torch.full((len(img),), ends[i], dtype=torch.long)",
            "t = torch.full((len(img),), i, dtype=torch.long)",
        ),
        (
            "found = self.predict_start(img, t, net(img, t))\n            noise",
            "found = self.predict_start(img, torch.full_like(t, ends[i]), net(img, t))\n"
            "            noise",
        ),
    ),
    _bug(
        "A23",
        "G.ddim",
        "the network is given i of n, not the timestep that stands there",
        (
            "for time, time_next in self.ddim_pairs(steps):",
            "for i, (time, time_next) in enumerate(self.ddim_pairs(steps)):",
        ),
        (
            "x_start = self.predict_start(img, t, net(img, t))",
            "x_start = self.predict_start(img, t, net(img, torch.full_like(t, i)))",
        ),
    ),
    _bug(
        "A23",
        "S.generate",
        "the network is given i of n, not the timestep that stands there",
        (
            "    for t in scheduler.timesteps:\n"
            "        out = net(scheduler.scale_model_input(x, t), t.expand(shape[0]))",
            "    for i, t in enumerate(scheduler.timesteps):\n"
            "        out = net(scheduler.scale_model_input(x, t), torch.full((shape[0],), i))",
        ),
    ),
    _bug(
        "A24",
        "ddim_step",
        "ᾱ_{t−1} and ᾱ_{s−1} in place of ᾱ_t and ᾱ_s",
        (
            "    bar_t, bar_s = alpha_bar_at(t), alpha_bar_at(s)\n    x_0 =",
            "    bar_t, bar_s = alphas_prod_p[t], alphas_prod_p[max(s, 0)]\n    x_0 =",
        ),
    ),
    _bug(
        "A24",
        "ddim_loop",
        "ᾱ_{t−1} and ᾱ_{s−1} in place of ᾱ_t and ᾱ_s: the last step divides by 1 − 1",
        (
            "    bar_t, bar_s = alpha_bar_at(t), alpha_bar_at(s)\n    x_0 =",
            "    bar_t, bar_s = alphas_prod_p[t], alphas_prod_p[max(s, 0)]\n    x_0 =",
        ),
    ),
    _bug(
        "A24",
        "G.ddim",
        "ᾱ_{t−1} in place of ᾱ_t, and a last pair (0, 0)",
        (
            "torch.linspace(-1, self.timesteps - 1, steps + 1).round().int().tolist()[::-1]",
            "torch.linspace(0, self.timesteps - 1, steps).int().tolist()[::-1] + [0]",
        ),
        (
            "return self.alphas_cumprod[t] if t >= 0 else torch.ones(())",
            "return self.alphas_cumprod_prev[t]",
        ),
    ),
    _bug(
        "A24",
        "G.ddim",
        "ᾱ_{t−1} and ᾱ_{s−1} in place of ᾱ_t and ᾱ_s",
        (
            "return self.alphas_cumprod[t] if t >= 0 else torch.ones(())",
            "return self.alphas_cumprod_prev[max(t, 0)]",
        ),
    ),
    _bug(
        "A24",
        "DDIM",
        "ᾱ of the index before, for both ends of the step",
        (
            "alpha_prod, alpha_prod_prev = self._bar(timestep), self._bar(previous)",
            "alpha_prod, alpha_prod_prev = self._bar(timestep - 1), self._bar(previous - 1)",
        ),
    ),
    _bug(
        "A25",
        "ddim_step_x_0",
        "x̂_0 stands where ε̂ is meant",
        ("torch.sqrt(1 - bar_s) * eps\n\n", "torch.sqrt(1 - bar_s) * x_0\n\n"),
        ("    eps = (x - torch.sqrt(bar_t) * x_0) / torch.sqrt(1 - bar_t)\n", ""),
    ),
    _bug(
        "A25",
        "G.ddim_x_0",
        "what the network returned is taken for ε̂, and it is x̂_0",
        (
            "x_start = self.predict_start(img, t, net(img, t))\n            bar, bar_next = "
            "self._bar(time)",
            "out = net(img, t)\n            x_start = self.predict_start(img, t, out)\n"
            "            bar, bar_next = self._bar(time)",
        ),
        ("pred_noise = (img - bar.sqrt() * x_start) / (1 - bar).sqrt()", "pred_noise = out"),
    ),
    _bug(
        "A25",
        "DDIM_x_0",
        "what the network returned is taken for ε̂, and it is x̂_0",
        (
            "pred_epsilon = (sample - alpha_prod.sqrt() * pred_original) / (1 - alpha_prod).sqrt()",
            "pred_epsilon = model_output",
        ),
    ),
    _bug(
        "A26",
        "ddim_loop",
        "s = t − 1000//n, where the next of the timesteps is another",
        ("s = times[i + 1] if i + 1 < n else -1", "s = t - n_steps // n"),
    ),
    _bug(
        "A26",
        "G.ddim_30",
        "s = t − 1000//30, where the timesteps are not equally far apart",
        (
            "return list(pairwise(times))",
            "return [(i, max(i - self.timesteps // steps, -1)) for i in times[:-1]]",
        ),
    ),
    *(
        _bug(
            "A26",
            name,
            "s = t − 1000//n, where the next of the timesteps is another",
            (
                "        place = int((self.timesteps == timestep).nonzero()[0])\n"
                "        return int(self.timesteps[place + 1]) "
                "if place + 1 < len(self.timesteps) else -1\n",
                "        return timestep - self.num_train_timesteps // self.num_inference_steps\n",
            ),
        )
        for name in ("DDPM_linspace", "DDIM_linspace")
    ),
    _bug(
        "A27",
        "heun_sample",
        "the second slope is taken at σ of the first",
        ("d_next = slope(denoise, x_next, there)", "d_next = slope(denoise, x_next, here)"),
    ),
    _bug(
        "A27",
        "Heun",
        "the second slope is divided by the first σ",
        (
            "d_next = (guess - denoise(guess, sigma_next)) / sigma_next",
            "d_next = (guess - denoise(guess, sigma_next)) / sigma",
        ),
    ),
    _bug(
        "A27",
        "Heun.one_step",
        "the denoiser of the second slope is asked at the first σ",
        (
            "d_next = (guess - denoise(guess, sigma_next)) / sigma_next",
            "d_next = (guess - denoise(guess, sigma)) / sigma_next",
        ),
    ),
    _bug(
        "A27",
        "Heun2",
        "x̂_0 of the second stage is x − σ·ε̂ with σ of the first",
        (
            "original = self._original(model_output, sample, sigma_next)",
            "original = self._original(model_output, sample, sigma)",
        ),
    ),
    _bug(
        "A27",
        "Heun2",
        "the second slope is divided by the first σ",
        (
            "slope_next = (sample - original) / sigma_next",
            "slope_next = (sample - original) / sigma",
        ),
    ),
    # --- the end
    _bug(
        "A28",
        "heun_sample",
        "second order at σ = 0, where the slope is 0/0",
        (
            "        if there > 0:\n            d_next = slope(denoise, x_next, there)\n"
            "            x_next = x + (there - here) * (d + d_next) / 2\n",
            "        d_next = slope(denoise, x_next, there)\n"
            "        x_next = x + (there - here) * (d + d_next) / 2\n",
        ),
    ),
    _bug(
        "A28",
        "karras_sigmas",
        "the last σ is there twice, and 0 never",
        (
            "    return torch.cat([(high + u * (low - high)) ** rho, torch.zeros(1, "
            "dtype=torch.float64)])",
            "    sigmas = (high + u * (low - high)) ** rho\n"
            "    return torch.cat([sigmas, sigmas[-1:]])",
        ),
    ),
    _bug(
        "A28",
        "dpmpp_sample",
        "the order is not lowered in the step to σ = 0: inf − inf",
        ("if old is not None and there > 0:", "if old is not None:"),
    ),
    _bug(
        "A28",
        "Heun",
        "second order at σ = 0, where the slope is 0/0",
        ("        if sigma_next == 0:\n            return guess\n", ""),
    ),
    _bug(
        "A28",
        "Heun",
        "the last σ is there twice, and 0 never",
        (
            "torch.cat([root**rho, torch.zeros(1, dtype=torch.float64)])",
            "torch.cat([root, root[-1:]]) ** rho",
        ),
    ),
    _bug(
        "A28",
        "Euler",
        "the last σ is there twice, and 0 never: noise stays",
        ("torch.zeros(1, dtype=sigmas.dtype)", "sigmas[-1:]"),
    ),
    _bug(
        "A28",
        "DPM",
        "the order is not lowered in the step to σ = 0: 1/0",
        ("if self.before is not None and not last:", "if self.before is not None:"),
    ),
    _bug(
        "A28",
        "DPM",
        "the last level is there twice: the last step does nothing, and noise stays",
        (
            "torch.cat([bars, self.final_alpha_cumprod[None]])",
            "torch.cat([bars, bars[-1:]])",
        ),
    ),
    _bug(
        "A29",
        "ddim_loop",
        "the last step goes to ᾱ of index 0, not to 1",
        ("if t >= 0 else torch.tensor(1.0)", "if t >= 0 else alphas_prod[0]"),
    ),
    _bug(
        "A29",
        "ddim_step",
        "the last step goes to ᾱ of index 0, not to 1",
        ("if t >= 0 else torch.tensor(1.0)", "if t >= 0 else alphas_prod[0]"),
    ),
    _bug(
        "A29",
        "G.ddim",
        "the last step goes to ᾱ of index 0, not to 1",
        (
            "self.alphas_cumprod[t] if t >= 0 else torch.ones(())",
            "self.alphas_cumprod[max(t, 0)]",
        ),
    ),
    _bug(
        "A29",
        "DDIM",
        "the last step goes to ᾱ of index 0, not to 1",
        ("torch.tensor(1.0, dtype=torch.float64)", "self.alphas_cumprod[0]"),
    ),
    _bug(
        "A30",
        "p_sample_loop",
        "steps t = 0, 1, …, T − 1",
        ("    for i in reversed(range(n_steps)):", "    for i in range(n_steps):"),
    ),
    _bug(
        "A30",
        "G.p_sample_loop",
        "steps t = 0, 1, …, T − 1",
        ("range(self.timesteps - 1, -1, -1)", "range(self.timesteps)"),
    ),
    _bug(
        "A29",
        "DDIM_100",
        "the last step goes to ᾱ of index 0, not to 1",
        ("torch.tensor(1.0, dtype=torch.float64)", "self.alphas_cumprod[0]"),
    ),
    _bug(
        "A30",
        "G.p_sample_loop_100",
        "steps t = 0, 1, …, T − 1",
        ("range(self.timesteps - 1, -1, -1)", "range(self.timesteps)"),
    ),
    _bug(
        "A30",
        "S.generate_ddpm",
        "the loop turns round timesteps that already go down",
        (
            "    for t in scheduler.timesteps:\n        out",
            "    for t in reversed(scheduler.timesteps):\n        out",
        ),
    ),
    _bug(
        "A30",
        "DDIM_linspace",
        "the timesteps go up",
        ("num_inference_steps, dtype=np.float64)[::-1]", "num_inference_steps, dtype=np.float64)"),
    ),
    # --- small parts
    _bug(
        "A31",
        "langevin_step",
        "the noise has std 1 where √(2·step) belongs",
        ("math.sqrt(2 * step) * z", "z"),
    ),
    _bug(
        "A31",
        "langevin_step",
        "the noise has std `step` where √(2·step) belongs",
        ("math.sqrt(2 * step) * z", "step * z"),
    ),
    _bug(
        "A31",
        "langevin",
        "the noise has std `step` where √(2·step) belongs",
        ("math.sqrt(2 * step) * noise", "step * noise"),
    ),
    _bug(
        "A31",
        "VE.correct",
        "the noise has std `size` where √(2·size) belongs",
        ("torch.sqrt(2 * size) * torch", "size * torch"),
    ),
    _bug(
        "A31",
        "Annealed.move",
        "the noise has std 1 where √(2·size) belongs",
        ("(2 * size) ** 0.5 * torch", "torch"),
    ),
    _bug(
        "A32",
        "classifier",
        "∇log p(y | x) at x_t, where it is meant at the mean of x_{t−1}",
        ("gradient(mean, t)", "gradient(x, t)"),
    ),
    _bug(
        "A32",
        "G.guided",
        "∇log p(y | x) at x_t, where it is meant at the mean of x_{t−1}",
        ("self.guide(mean, t)", "self.guide(x, t)"),
    ),
    _bug(
        "A33",
        "ema",
        "the smaller decay of the start is kept for good",
        ("decay = min(self.decay,", "decay = self.decay = min(self.decay,"),
    ),
    _bug(
        "A33",
        "G.ema",
        "the smaller decay of the start, 0, is kept for good",
        ("rate = self.current_decay()", "rate = self.decay = self.current_decay()"),
    ),
    _bug(
        "A33",
        "S.ema",
        "the smaller decay of the start, 0, is kept for good",
        (
            "decay = self.get_decay(self.optimization_step)\n        self",
            "self.decay = decay = self.get_decay(self.optimization_step)\n        self",
        ),
    ),
    _bug(
        "A34",
        "p_sample_clipped",
        "x̂_0 is clipped at ±1, and the data go to ±3",
        (".clamp(-largest, largest)", ".clamp(-1.0, 1.0)"),
    ),
    _bug(
        "A34",
        "p_sample_thresholded",
        "the threshold, at least 1, is also at most 1",
        ("ratio=0.995, largest=100.0", "ratio=0.995, largest=1.0"),
    ),
    _bug(
        "A34",
        "G.p_sample_clipped",
        "x̂_0 is clipped at ±1, whatever was asked for",
        ("x_start.clamp(-self.clip, self.clip)", "x_start.clamp(-1, 1)"),
    ),
    _bug(
        "A34",
        "G.p_sample_threshold",
        "the threshold is held at the largest value, so that nothing is cut",
        (
            "dim=1).clamp(min=1.0)",
            "dim=1)\n            s = torch.maximum(s, largest.amax(dim=1)).clamp(min=1.0)",
        ),
    ),
    _bug(
        "A34",
        "DDPM_clipped",
        "x̂_0 is clipped at ±1, whatever was asked for",
        ("x.clamp(-self.clip_sample_range, self.clip_sample_range)", "x.clamp(-1, 1)"),
    ),
    _bug(
        "A34",
        "DDIM_threshold",
        "the threshold, at least 1, is also at most 1",
        ("sample_max_value=100.0", "sample_max_value=1.0"),
    ),
    _bug(
        "A35",
        "q_sample_low",
        "ᾱ is rounded to x's dtype before 1 − ᾱ",
        (
            "    keep = extract(alphas_bar_sqrt, t, x_0)\n"
            "    spread = extract(one_minus_alphas_bar_sqrt, t, x_0)\n    return (keep",
            "    bar = extract(alphas_prod, t, x_0).to(x_0.dtype)\n"
            "    keep, spread = bar.sqrt(), (1 - bar).sqrt()\n    return (keep",
        ),
    ),
    _bug(
        "A35",
        "ddim_times_many",
        "times from 1 to 0 in bfloat16: 500 of them are not 500 different timesteps",
        (
            "torch.linspace(n_steps - 1, 0, n).round().long()",
            "(torch.linspace(1, 0, n).bfloat16().float() * (n_steps - 1)).round().long()",
        ),
    ),
    _bug(
        "A35",
        "G.q_sample_low",
        "ᾱ is rounded to x's dtype before 1 − ᾱ",
        (
            "        alpha = self._at(self.sqrt_alphas_cumprod, t, x_start)\n"
            "        sigma = self._at(self.sqrt_one_minus_alphas_cumprod, t, x_start)\n"
            "        return (",
            "        bar = self._at(self.alphas_cumprod, t, x_start).to(x_start.dtype)\n"
            "        alpha, sigma = bar.sqrt(), (1 - bar).sqrt()\n        return (",
        ),
    ),
    _bug(
        "A35",
        "S.add_noise_low",
        "ᾱ is rounded to x's dtype before 1 − ᾱ",
        (
            "bar = like(self.alphas_cumprod[timesteps], original_samples)",
            "bar = like(self.alphas_cumprod.to(original_samples.dtype)[timesteps], "
            "original_samples)",
        ),
    ),
    _bug(
        "A35",
        "S.timesteps",
        "times from 1 to 0 in bfloat16: some timesteps come twice",
        (
            "self.timesteps = torch.from_numpy(np.round(times).astype(np.int64).copy())",
            "share = torch.from_numpy(times / last).to(torch.bfloat16)\n"
            "        self.timesteps = (share.float() * last).round().long()",
        ),
    ),
]

NOT_BUGS = [
    *(
        _bug(
            "N1",
            name,
            "i·(T + 1)/T over T + 1 is i/T",
            (
                "x = torch.linspace(0, n_timesteps, steps, dtype=torch.float64)",
                "x = torch.linspace(0, steps, steps, dtype=torch.float64)",
            ),
            ("x / n_timesteps + s", "x / steps + s"),
        )
        for name in ("betas_cosine", "bars_cosine")
    ),
    _bug(
        "N1",
        "G.betas_cosine",
        "i·(T + 1)/T over T + 1 is i/T",
        (
            "torch.linspace(0, timesteps, count, dtype=torch.float64) / timesteps",
            "torch.linspace(0, count, count, dtype=torch.float64) / count",
        ),
    ),
    _bug(
        "N1",
        "S.bars_cosine",
        "i·(T + 1)/T over T + 1 is i/T",
        (
            "np.linspace(0, num_train_timesteps, count) / num_train_timesteps",
            "np.linspace(0, count, count) / count",
        ),
    ),
    _bug(
        "N2",
        "cfg",
        "(1 + w)·cond − w·uncond: s = 1 + w",
        (
            "return bare + scale * (model(x, t, y) - bare)",
            "return (1 + scale) * model(x, t, y) - scale * bare",
        ),
    ),
    _bug(
        "N2",
        "G.cfg",
        "cond + w·(cond − uncond): s = 1 + w",
        ("return free + (given - free) * self.scale", "return given + (given - free) * self.scale"),
    ),
    _bug(
        "N2",
        "S.guided",
        "cond + w·(cond − uncond): s = 1 + w",
        ("return uncond + guidance_scale", "return cond + guidance_scale"),
    ),
    _bug(
        "N3",
        "p_sample",
        "the mean by way of x̂_0",
        (
            "    eps = model(x, t)\n"
            "    share = extract(betas, t, x) / extract(one_minus_alphas_bar_sqrt, t, x)\n"
            "    mean = (x - share * eps) / torch.sqrt(1 - extract(betas, t, x))\n",
            "    x_0 = predict_x_0(x, t, model(x, t))\n"
            "    mean, _ = q_posterior_mean_variance(x_0, x, t)\n",
        ),
    ),
    _bug(
        "N3",
        "G.p_sample",
        "the mean from ε̂ alone",
        (
            "        mean = self.q_posterior_mean_variance(x_start, x, t)[0]\n",
            "        beta = self._at(self.betas, t, x)\n"
            "        share = beta / self._at(self.sqrt_one_minus_alphas_cumprod, t, x)\n"
            "        mean = (x - share * out) / (1 - beta).sqrt()\n",
        ),
    ),
    _bug(
        "N3",
        "DDPM",
        "the mean from ε̂ alone",
        (
            "        x = clean_share * original + noisy_share * sample\n",
            "        share = (1 - current_alpha) / beta_prod_t.sqrt()\n"
            "        x = (sample - share * model_output) / current_alpha.sqrt()\n",
        ),
        ("        clean_share = bar_prev.sqrt() * (1 - current_alpha) / beta_prod_t\n", ""),
        ("        noisy_share = current_alpha.sqrt() * beta_prod_prev / beta_prod_t\n", ""),
    ),
    _bug(
        "N4",
        "p_sample",
        "β as the variance",
        (
            "std = torch.exp(0.5 * extract(reverse_log_variance, t, x))",
            "std = torch.sqrt(extract(betas, t, x))",
        ),
    ),
    _bug(
        "N4",
        "G.p_sample",
        "β as the variance",
        (
            "            variance = self._at(self.posterior_variance, t, x).expand_as(x)\n"
            "            log_variance = self._at(self.posterior_log_variance_clipped, t, x)"
            ".expand_as(x)\n",
            "            variance = self._at(self.betas, t, x).expand_as(x)\n"
            "            log_variance = variance.log()\n",
        ),
    ),
    _bug(
        "N4",
        "DDPM",
        "β as the variance, of the strided step",
        ("        return small.log()\n", "        return current_beta.log()\n"),
    ),
    _bug(
        "N5",
        "DDPM",
        "1 − ᾱ under the name of ᾱ's product of β",
        (
            "        beta_prod_t = 1 - bar\n",
            "        alpha_prod_t = bar\n        beta_prod_t = 1 - alpha_prod_t\n",
        ),
    ),
    _bug(
        "N5",
        "posterior",
        "1 − ᾱ in a table called after a product of β",
        (
            "clean_share = betas * torch.sqrt(alphas_prod_p) / (1 - alphas_prod)\n",
            "betas_prod = 1 - alphas_prod\n"
            "clean_share = betas * torch.sqrt(alphas_prod_p) / betas_prod\n",
        ),
    ),
    _bug(
        "N6",
        "Euler",
        "samples are kept at unit variance: (x_0 + σ·ε)/√(1 + σ²)",
        ("        return sample / (sigma**2 + 1).sqrt()\n", "        return sample\n"),
        ("        sigma = self.sigma_of(int(timestep))\n", ""),
        (
            "        return (original_samples + sigma * noise).to(original_samples.dtype)\n",
            "        noisy = (original_samples + sigma * noise) / (sigma**2 + 1).sqrt()\n"
            "        return noisy.to(original_samples.dtype)\n",
        ),
        (
            "        self.init_noise_sigma = (self.sigmas[0] ** 2 + 1).sqrt()\n",
            "        self.init_noise_sigma = 1.0\n",
        ),
        (
            "        i = self.step_index\n        sigma, sigma_next = self.sigmas[i], "
            "self.sigmas[i + 1]\n        original = self._original(model_output, sample, sigma)\n",
            "        i = self.step_index\n        sigma, sigma_next = self.sigmas[i], "
            "self.sigmas[i + 1]\n        sample = sample * (sigma**2 + 1).sqrt()\n"
            "        original = self._original(model_output, sample, sigma)\n",
        ),
        (
            "        return StepOutput(sample + (sigma_next - sigma) * slope, original)\n",
            "        x = (sample + (sigma_next - sigma) * slope) / (sigma_next**2 + 1).sqrt()\n"
            "        return StepOutput(x, original)\n",
        ),
    ),
    _bug(
        "N6",
        "euler_sample",
        "x comes in and stays at unit variance: x/√(1 + σ²)",
        (
            "        x = x + (sigmas[i + 1] - sigmas[i]) * slope(denoise, x, sigmas[i])\n",
            "        y = x * (1 + sigmas[i] ** 2) ** 0.5\n"
            "        y = y + (sigmas[i + 1] - sigmas[i]) * slope(denoise, y, sigmas[i])\n"
            "        x = y / (1 + sigmas[i + 1] ** 2) ** 0.5\n",
        ),
    ),
    *(
        _bug(
            "N7",
            name,
            "t = 0 is noise and t = 1 is data, in mixture, target and loop",
            ("(1 - share) * x_0 + share * noise", "share * x_0 + (1 - share) * noise"),
            ("target = noise - x_0", "target = x_0 - noise"),
            ("grid = torch.linspace(1, 0, n + 1)", "grid = torch.linspace(0, 1, n + 1)"),
        )
        for name in ("flow_mix", "flow_loss", "flow_sample")
    ),
    *(
        _bug(
            "N7",
            name,
            "t = 0 is data and t = 1 is noise, in mixture, target and loop",
            ("return noise + t * (data - noise)", "return data + t * (noise - data)"),
            ("flow = data - noise", "flow = noise - data"),
            ("i / self.steps)\n", "1 - i / self.steps)\n"),
            ("x = x + net(x, t) / self.steps", "x = x - net(x, t) / self.steps"),
        )
        for name in ("Flow.mix", "Flow.loss", "Flow.sample")
    ),
    _bug(
        "N8",
        "betas_cosine",
        "nothing bounds β: the last one is 1",
        ("(1 - f[1:] / f[:-1]).clamp(max=0.999)", "1 - f[1:] / f[:-1]"),
    ),
    _bug(
        "N8",
        "G.betas_cosine",
        "nothing bounds β: the last one is 1",
        ("torch.clamp(1 - bars[1:] / bars[:-1], 0, 0.999)", "1 - bars[1:] / bars[:-1]"),
    ),
    _bug(
        "N8",
        "DDPM_cosine_v",
        "nothing bounds β: the last one is 1",
        ("np.minimum(1 - curve[1:] / curve[:-1], 0.999)", "1 - curve[1:] / curve[:-1]"),
    ),
]

SPECIMENS: list[Specimen] = [*RIGHT, *BUGS, *NOT_BUGS]
