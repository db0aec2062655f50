"""Parameters, losses and the optimizer on small problems with known answers."""

import math

import pytest
import torch
from scipy.optimize import least_squares
from support import refinement, tensor
from torch import nn

from refine.errors import InputError
from refine.fit.losses import Gaussian, MeanSquare, Poisson
from refine.fit.normal_equations import NormalEquations
from refine.fit.optimizers import LevenbergMarquardt
from refine.fit.refinement import Refinement
from refine.fit.uncertainty import Uncertainty, uncertainty
from refine.parameters.declared import DECLARED, labels
from refine.parameters.parameters import Parameters
from refine.parameters.spec import ParameterSpec
from refine.report.results import standard_uncertainties, value_with_esd


def two(**changes) -> Parameters:
    return Parameters(
        [
            ParameterSpec("misset_deg", tensor([1.0, 2.0, 3.0]), free=True, scale=0.5),
            ParameterSpec("scale", tensor([4.0]), scale=None, **changes),
        ]
    )


def test_values_start_at_the_initial_ones_and_frozen_ones_stay():
    parameters = two()
    with torch.no_grad():
        parameters.raw["misset_deg"] += 1
    values = parameters()
    assert values["misset_deg"].tolist() == [1.5, 2.5, 3.5]
    assert float(values["scale"]) == 4.0
    assert parameters.free_labels == labels("misset_deg") == ["misset_deg_x", "misset_deg_y", "misset_deg_z"]


def test_a_scale_of_none_is_the_initial_size():
    assert two(free=True).scales().tolist() == [0.5, 0.5, 0.5, 4.0]


def test_projection_keeps_bounds():
    parameters = two(free=True, lower=3.0, upper=5.0)
    with torch.no_grad():
        parameters.raw["scale"] += 7
    parameters.project()
    assert float(parameters()["scale"]) == 5.0


def test_an_initial_value_outside_its_bounds_is_refused():
    with pytest.raises(InputError, match=r"initial\.scale"):
        two(free=True, lower=5.0)


def test_a_prior_is_a_chi_square():
    parameters = two(free=True, prior=(tensor([3.0]), tensor([0.5])))
    assert float(parameters.penalty()) == pytest.approx(4.0)


def test_units():
    asked = [("cell", 0), ("cell", 3), ("distance_mm", 0), ("wavelength_A", 0)]
    assert [DECLARED[name].unit_of(component) for name, component in asked] == ["A", "deg", "mm", "A"]


LOSSES = [Gaussian(0.0), Gaussian(3.0), Gaussian(2.0, 0.05), Poisson(), MeanSquare()]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_zero_at_the_data_and_its_slope_is_its_derivative(loss):
    observed = tensor([0.0, 1.0, 5.0, 2000.0])
    assert float(loss.value(observed, observed)) == 0.0
    model = tensor([0.3, 1.4, 4.0, 2100.0]).requires_grad_()
    assert float(loss.value(model, observed)) > 0
    (gradient,) = torch.autograd.grad(loss.value(model, observed), model)
    torch.testing.assert_close(gradient, loss.slope(model.detach(), observed))


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_is_the_expected_second_derivative(loss):
    model = tensor([4.0, 50.0])
    gradient = torch.func.grad(lambda m: loss.value(m, tensor([4.0, 50.0])))
    second = torch.func.jacrev(gradient)(model).diagonal()
    torch.testing.assert_close(second, loss.curvature(model))


def test_a_proportional_error_adds_to_the_variance():
    n, mu = tensor([10000.0]), tensor([10300.0])
    assert float(Gaussian(0.0, 0.03).value(mu, n)) == pytest.approx(300**2 / (10300 + 309**2), rel=0.05)
    small = float(Gaussian(3.0, 1e-5).value(mu, n))
    assert small == pytest.approx(float(Gaussian(3.0).value(mu, n)), rel=1e-4)


def test_outliers_count_linearly_and_smoothly():
    loss, plain = Gaussian(0.0, outliers=3.0), Gaussian(0.0)
    mu = tensor([100.0])
    assert float(loss.value(mu, tensor([115.0]))) == float(plain.value(mu, tensor([115.0])))
    far = float(plain.value(mu, tensor([500.0])))
    assert float(loss.value(mu, tensor([500.0]))) == pytest.approx(6 * far**0.5 - 9)
    model = tensor([100.0, 130.0, 131.0, 400.0]).requires_grad_()
    observed = tensor([100.0, 100.0, 100.0, 100.0])
    (gradient,) = torch.autograd.grad(loss.value(model, observed), model)
    torch.testing.assert_close(gradient, loss.slope(model.detach(), observed))


@pytest.mark.parametrize("wrong", [{"readout": 30.0, "proportional": 0.5}, {"proportional": -0.1}, {"outliers": 0.0}])
def test_errors_that_make_no_variance_are_refused(wrong):
    with pytest.raises(ValueError, match="expected proportional >= 0"):
        Gaussian(**wrong)


def test_poisson_deviance_is_the_textbook_one():
    n, mu = tensor([3.0, 0.0, 12.0]), tensor([2.0, 1.0, 15.0])
    expected = 2 * sum(float(a * math.log(a / b) if a else 0.0) - float(a - b) for a, b in zip(n, mu, strict=True))
    assert float(Poisson().value(mu, n)) == pytest.approx(expected, abs=1e-4)


def test_many_photons_make_a_deviance_a_chi_square():
    n, mu = tensor([10000.0]), tensor([10050.0])
    assert float(Gaussian(30.0).value(mu, n)) == pytest.approx(2500 / (10050 + 900), rel=0.01)


def test_read_out_noise_below_zero_keeps_the_deviance_finite_and_the_model_at_zero_best():
    values = [float(Gaussian(1.0).value(tensor([m]), tensor([-4.0]))) for m in (0.0, 0.5, 2.0)]
    assert values[0] == pytest.approx(0)
    assert values == sorted(values)


class Exponential(nn.Module):
    """Photons of a decaying curve: height = scale, rate = background."""

    def forward(self, values):
        x = torch.linspace(0, 3, 60, dtype=torch.float64)
        return values["scale"] * torch.exp(-values["background"] * x) + 1.0


def curve(loss, **prior) -> Refinement:
    truth = Exponential()({"scale": tensor(500.0), "background": tensor(1.3)})
    specs = [
        ParameterSpec("scale", tensor([200.0]), scale=None, free=True, lower=0.0),
        ParameterSpec("background", tensor([0.3]), scale=1.0, free=True, lower=0.0, **prior),
    ]
    return refinement(Exponential(), Parameters(specs), loss, truth)


def minimise(module: Refinement, steps: int = 30) -> list[float]:
    optimizer = module.configure_optimizers()
    return [float(optimizer.step(problem=module)) for _ in range(steps)]


@pytest.mark.parametrize("loss", LOSSES)
def test_levenberg_marquardt_finds_the_curve_and_never_climbs(loss):
    module = curve(loss)
    losses = minimise(module)
    assert losses == sorted(losses, reverse=True)
    assert float(module.refined()["scale"]) == pytest.approx(500, rel=1e-6)
    assert float(module.refined()["background"]) == pytest.approx(1.3, rel=1e-6)


def test_levenberg_marquardt_caps_its_steps():
    module = curve(Gaussian())
    module.configure_optimizers().step(problem=module)
    assert float(module.refined.vector().abs().max()) <= 1.5


class Bowl:
    """A quadratic problem whose expected curvature is wrong by a factor, as few photons leave it."""

    def __init__(self, wrong: float) -> None:
        self.hessian = tensor([[4.0, 1.0], [1.0, 2.0]])
        self.wrong = wrong

    def settle(self, vector):
        return vector, vector @ self.hessian @ vector / 2 + 1

    def normal_equations(self, vector):
        linear = torch.zeros(2, dtype=torch.bool)
        return NormalEquations(self.settle(vector)[1], self.hessian @ vector, self.wrong * self.hessian, linear)

    def bounds(self):
        return torch.full((2,), -torch.inf).double(), torch.full((2,), torch.inf).double()


@pytest.mark.parametrize("wrong", [1.0, 2.5])
def test_steps_near_the_end_learn_the_curvature(wrong):
    point = nn.Parameter(tensor([0.3, -0.2]))
    optimizer = LevenbergMarquardt([point], damping=1e-9)
    for _ in range(4):
        optimizer.step(problem=Bowl(wrong))
    assert float(point.detach().norm()) < 1e-6


def test_the_reach_grows_while_the_loss_falls_as_predicted_and_a_restart_forgets():
    point = nn.Parameter(tensor([40.0, 0.0]))
    optimizer = LevenbergMarquardt([point], damping=1e-9)
    moves = []
    for _ in range(4):
        before = point.detach().clone()
        optimizer.step(problem=Bowl(1.0))
        moves.append(float((point.detach() - before).abs().max()))
    assert moves == pytest.approx([1.5, 3.0, 6.0, 12.0])
    optimizer.restart()
    assert optimizer.param_groups[0]["reach"] == 1.5
    assert not optimizer.state


def test_a_tight_prior_wins():
    module = curve(Gaussian(), prior=(tensor([0.7]), tensor([1e-6])))
    minimise(module)
    assert float(module.refined()["background"]) == pytest.approx(0.7, abs=1e-4)


def test_a_parameter_stays_at_its_bound():
    module = curve(Gaussian())
    module.refined.upper_background.fill_(0.8)
    minimise(module)
    assert float(module.refined()["background"]) == pytest.approx(0.8)


def test_normal_equations_agree_with_autograd():
    module = curve(Gaussian(2.0), prior=(tensor([0.7]), tensor([0.1])))
    vector = tensor([0.2, 0.1])
    loss, gradient, curvature, _ = module.normal_equations(vector)
    variable = vector.clone().requires_grad_()
    value = module.value(variable)
    torch.testing.assert_close(value.detach(), loss)
    torch.testing.assert_close(torch.autograd.grad(value, variable)[0], gradient)
    torch.testing.assert_close(curvature, curvature.T)


def test_uncertainties_match_the_scatter_of_replicates():
    generator = torch.Generator().manual_seed(1)
    module = curve(Poisson())
    truth = module.observed.clone()
    found, esds = [], []
    for _ in range(60):
        module.seen[0].photons.copy_(torch.poisson(truth, generator=generator))
        with torch.no_grad():
            for raw in module.refined.raw.values():
                raw.zero_()
        minimise(module, 12)
        found.append(float(module.refined()["background"]))
        esds.append(standard_uncertainties(module).esds["background"])
    scatter = float(torch.tensor(found).std())
    assert scatter == pytest.approx(sum(esds) / len(esds), rel=0.25)


class TwoCurves(nn.Module):
    """A peak of adjustable width over a slope: linear in scale and background."""

    linear = ("scale", "background")

    def least(self):
        return None

    def prepare(self, values):
        pass

    def parts(self, values):
        x = torch.linspace(0, 3, 60, dtype=torch.float64)
        return torch.stack([torch.exp(-values["mosaic_spread_deg"] * x**2), 1 + x / 3], -1)

    def forward(self, values):
        return self.parts(values) @ torch.stack([values["scale"], values["background"]])


def two_curves(loss, noise: bool = True, highest: float | None = None) -> Refinement:
    truth = {"mosaic_spread_deg": tensor(1.3), "scale": tensor(500.0), "background": tensor(20.0)}
    observed = TwoCurves()(truth)
    if noise:
        observed = torch.poisson(observed, generator=torch.Generator().manual_seed(4))
    specs = [
        ParameterSpec("mosaic_spread_deg", tensor([0.4]), scale=0.5, free=True, lower=0.01),
        ParameterSpec("scale", tensor([20.0]), scale=None, free=True, lower=0.0),
        ParameterSpec("background", tensor([1.0]), scale=None, free=True, lower=0.0, upper=highest),
    ]
    return refinement(TwoCurves(), Parameters(specs), loss, observed)


@pytest.mark.parametrize("loss", LOSSES)
def test_eliminating_the_linear_parameters_leaves_no_slope_in_them(loss):
    module = two_curves(loss)
    start = tensor([1.4, 0.0, 0.0])
    settled, value = module.settle(start)
    assert settled[0] == start[0]
    equations = module.normal_equations(settled)
    assert equations.linear.tolist() == [False, True, True]
    torch.testing.assert_close(value, equations.loss)
    size = (equations.curvature.diagonal() * equations.loss).sqrt()
    assert float((equations.gradient[1:] / size[1:]).abs().max()) < 1e-4


def test_a_bound_of_one_linear_parameter_moves_the_other():
    module = two_curves(Gaussian(), highest=3.0)
    settled, value = module.settle(module.refined.vector())
    assert float(module.refined(settled)["background"]) == pytest.approx(3.0)
    nudge = tensor([0.0, 1.0, 0.0])
    for step in (-0.1, 0.1):
        assert module.loss_at(settled + step * nudge) > value


def test_a_linear_parameter_that_is_frozen_or_restrained_is_not_eliminated():
    module = two_curves(Gaussian())
    del module.refined.raw["scale"]
    assert module.linear == ("background",)
    settled, _ = module.settle(module.refined.vector())
    assert float(module.refined(settled)["scale"]) == 20.0
    assert float(module.refined(settled)["background"]) > 20.0


def test_levenberg_marquardt_agrees_with_scipy():
    module = two_curves(MeanSquare())
    minimise(module, 20)

    def residuals(p):
        values = dict(zip(("mosaic_spread_deg", "scale", "background"), tensor(p), strict=True))
        return (TwoCurves()(values) - module.observed).numpy()

    oracle = least_squares(residuals, [0.4, 20.0, 1.0], x_scale="jac", xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    values = module.refined()
    found = [float(values[n]) for n in ("mosaic_spread_deg", "scale", "background")]
    assert found == pytest.approx(oracle.tolist(), rel=1e-6)


def test_a_direction_that_the_data_do_not_fix_has_no_uncertainty():
    names = ["cell_a", "wavelength_A", "scale", "b_iso_A2"]
    curvature = torch.block_diag(tensor([[1.0, 1.0], [1.0, 1.0]]), tensor([[8.0]]), tensor([[0.0]]))
    known = uncertainty(curvature, torch.eye(4).double(), names, names)
    assert known.esds == {"scale": 0.5}
    assert known.correlation is None
    degenerate, unfelt = sorted(known.sentences(), key=len, reverse=True)
    assert degenerate in (
        "the data do not determine cell_a, degenerate with wavelength_A",
        "the data do not determine wavelength_A, degenerate with cell_a",
    )
    assert unfelt == "the data do not determine b_iso_A2"


def test_a_direction_of_many_parameters_names_a_few_and_counts_the_rest():
    mixed = Uncertainty([], open=[{f"scale_{n}": 0.3 - n / 1000 for n in range(9)}])
    assert mixed.sentences() == [
        "the data do not determine scale_0, degenerate with scale_1 and scale_2 and scale_3 and scale_4 and 4 more"
    ]
    shift = Uncertainty([], open=[{f"xyz_{n}_x": 1 / 3 for n in range(9)}])
    assert shift.sentences() == ["the data do not determine the origin along x: a shift of all atoms"]


def test_an_esd_of_a_thousand_natural_steps_is_none():
    known = uncertainty(
        torch.diag(tensor([8.0, 1e-8])), torch.eye(2).double(), ["scale", "cell_a"], ["scale", "cell_a"]
    )
    assert known.esds == {"scale": 0.5}
    assert known.sentences() == ["the data do not determine cell_a"]


def test_uncertainties_follow_the_inverse_of_the_curvature_through_ties():
    curvature = tensor([[2.0, 0.6], [0.6, 8.0]])
    ties = tensor([[0.5, 0.0], [0.5, 0.0], [0.0, 2.0]])
    known = uncertainty(curvature, ties, ["cell_a", "cell_c"], ["cell_a", "cell_b", "cell_c"])
    covariance = ties @ (2 * torch.linalg.inv(curvature)) @ ties.T
    esds = covariance.diagonal().sqrt()
    torch.testing.assert_close(tensor(list(known.esds.values())), esds)
    torch.testing.assert_close(known.correlation, covariance / torch.outer(esds, esds))
    assert known.scaled(4.0).esds["cell_c"] == 2 * known.esds["cell_c"]


def test_optimizer_refuses_nonsense():
    with pytest.raises(ValueError, match="max_step"):
        LevenbergMarquardt([nn.Parameter(torch.zeros(1))], max_step=0.0)
    with pytest.raises(TypeError, match="problem"):
        LevenbergMarquardt([nn.Parameter(torch.zeros(1))]).step()


@pytest.mark.parametrize(
    ("value", "esd", "text"),
    [(4.99718, 0.00132, "4.9972(13)"), (0.8, None, "0.8"), (1234.5, 23.0, "1234(23)"), (5.0, 0.06, "5.000(60)")],
)
def test_value_with_uncertainty(value, esd, text):
    assert value_with_esd(value, esd) == text
