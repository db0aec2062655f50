from itertools import islice

import pytest
import torch
from support import tensor

from refine.build import build
from refine.compose import load
from sim_core.mosaic import (
    SIGMA_PER_SPREAD,
    domain_rotations,
    normal_domains,
    quadrature_domains,
    random_domains,
)
from sim_core.random_numbers import ran1


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (1, [0.4159993529, 0.0919648930, 0.7564104795, 0.5297002196, 0.9304364920, 0.3835020661]),
        (42, [0.4719730020, 0.5390093923, 0.7370190024, 0.1882741302, 0.9935095906, 0.5304490328]),
        (12345678, [0.7659893036, 0.0234536640, 0.5897266269, 0.5351015925, 0.9822314382, 0.6930161119]),
    ],
)
def test_random_numbers_of_the_reference(seed, expected):
    assert list(islice(ran1(seed), 6)) == pytest.approx(expected, abs=5e-11)


def test_second_block_of_the_reference():
    rotation = domain_rotations(random_domains(2, 42), torch.deg2rad(tensor(0.8)))[1]
    expected = tensor(
        [
            [0.9999049144519385, -0.01376300510835097, -0.0008612463346594989],
            [0.013764761190576848, 0.9999031238666164, 0.002067421376574845],
            [0.0008327089694777916, -0.002079079644803027, 0.9999974920086564],
        ]
    )
    torch.testing.assert_close(rotation, expected, rtol=0, atol=1e-8)


def test_first_block_is_not_turned():
    torch.testing.assert_close(
        domain_rotations(random_domains(3, 7), tensor(0.1))[0], torch.eye(3, dtype=torch.float64)
    )


@pytest.mark.parametrize("count", [7, 13, 25, 65, 97, 187])
def test_quadrature_has_the_moments_of_the_random_blocks(count):
    rule, sample = quadrature_domains(count), random_domains(100000, 3)
    assert len(rule.weights) == count
    assert float(rule.weights.sum()) == pytest.approx(1)
    assert float(rule.weights.min()) > 0

    def moments(domains):
        v = domains.axes * domains.angles[:, None]
        second = torch.einsum("n,ni,nj->ij", domains.weights, v, v)
        fourth = (domains.weights * domains.angles**4).sum()
        return (domains.weights[:, None] * v).sum(0), second, fourth

    first, second, fourth = moments(rule)
    assert float(first.abs().max()) < 1e-14
    torch.testing.assert_close(second, SIGMA_PER_SPREAD**2 * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(second, moments(sample)[1], rtol=0, atol=3e-3)
    torch.testing.assert_close(fourth, moments(sample)[2], rtol=0, atol=3e-3)


@pytest.mark.parametrize("count", [7, 13, 25, 65, 97, 187])
def test_normal_quadrature_has_the_moments_of_a_normal_distribution(count):
    rule = quadrature_domains(count, "normal")
    v = rule.axes * rule.angles[:, None]
    assert len(rule.weights) == count
    assert float(rule.weights.sum()) == pytest.approx(1)
    assert float(rule.weights.min()) > 0
    assert float((rule.weights[:, None] * v).sum(0).abs().max()) < 1e-14
    second = torch.einsum("n,ni,nj->ij", rule.weights, v, v)
    torch.testing.assert_close(second, SIGMA_PER_SPREAD**2 * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    fourth = float((rule.weights * rule.angles**4).sum())
    assert fourth == pytest.approx(15 * SIGMA_PER_SPREAD**4)
    if count >= 97:
        assert float((rule.weights * rule.angles**6).sum()) == pytest.approx(105 * SIGMA_PER_SPREAD**6)


def test_normal_blocks_have_the_moments_of_a_normal_distribution():
    sample = normal_domains(200000, 3)
    v = sample.axes * sample.angles[:, None]
    assert float(sample.weights.sum()) == pytest.approx(1)
    assert float(v.mean(0).abs().max()) < 5e-3
    torch.testing.assert_close(
        torch.cov(v.T), SIGMA_PER_SPREAD**2 * torch.eye(3, dtype=torch.float64), rtol=0, atol=3e-3
    )
    assert float(sample.angles.pow(4).mean()) == pytest.approx(15 * SIGMA_PER_SPREAD**4, rel=0.02)
    assert torch.equal(normal_domains(5, 1).angles, normal_domains(5, 1).angles)
    assert not torch.equal(normal_domains(5, 1).angles, normal_domains(5, 2).angles)


def test_icosahedral_rules_integrate_high_degrees():
    x, y, z = quadrature_domains(187).axes[1:63].T
    weights = quadrature_domains(187).weights[1:63]
    weights = weights / weights.sum()
    assert float((weights * x**10).sum()) == pytest.approx(1 / 11, abs=1e-12)
    assert float((weights * x**4 * y**4 * z**2).sum()) == pytest.approx(9 / 10395 * 1.0, abs=1e-12)


def test_the_best_rule_within_a_budget():
    assert [len(quadrature_domains(n).weights) for n in (1, 6, 7, 30, 1000)] == [1, 1, 7, 25, 187]
    with pytest.raises(ValueError, match="positive"):
        quadrature_domains(0)


@pytest.mark.parametrize(
    ("simulator", "spread", "turned"),
    [("sampled", "0.8", True), ("closed_form", "0.8", False), ("sampled", "[0.5,0.8,1.1]", True)],
)
def test_only_data_from_blocks_are_turned_by_their_mean(simulator, spread, turned):
    crystal = ["crystal.shape=gaussian", "truth.mosaic_domains=25", f"truth.mosaic_spread_deg={spread}"]
    (frame,) = build(load("experiment=mosaic_misset", *crystal, f"truth.simulator={simulator}")).frames
    assert any(frame.entries["mean_domain_rotation_deg"]["data"]) == turned
