"""The generator, the mosaic blocks and the counting noise of the reference."""

import math

import numpy as np
import pytest

from refine.nanobragg.generator import Generator
from refine.nanobragg.noise import _uniform, add_noise, log_gamma, poisson

FIRST = {
    -1: [0.4159993529, 0.0919648930, 0.7564104795, 0.5297002196, 0.9304364920, 0.3835020661],
    -42: [0.4719730020, 0.5390093923, 0.7370190024, 0.1882741302, 0.9935095906, 0.5304490328],
    -12345678: [0.7659893036, 0.0234536640, 0.5897266269, 0.5351015925, 0.9822314382, 0.6930161119],
}


@pytest.mark.parametrize("seed", FIRST)
def test_first_deviates(seed: int) -> None:
    generator, own = Generator(), [seed]
    assert np.allclose([generator.uniform(own) for _ in range(6)], FIRST[seed], atol=5e-11)


def test_compiled_generator_shares_the_state() -> None:
    plain, shared = Generator(), Generator()
    own, seed = [-7], np.array([-7])
    expected = [plain.uniform(own) for _ in range(200)]
    assert [float(_uniform(shared.state, seed)) for _ in range(200)] == expected
    assert (plain.state == shared.state).all()


def test_seed_that_does_not_start_anew_goes_on_with_the_table() -> None:
    generator, used = Generator(), Generator()
    used.uniform([-5])
    assert used.uniform([9]) != generator.uniform([9])


def test_second_mosaic_block() -> None:
    expected = [
        [0.9999049144519385, -0.01376300510835097, -0.0008612463346594989],
        [0.013764761190576848, 0.9999031238666164, 0.002067421376574845],
        [0.0008327089694777916, -0.002079079644803027, 0.9999974920086564],
    ]
    blocks = np.array(Generator().domains(math.radians(0.8), 2, -42))
    assert (blocks[0] == np.eye(3)).all()
    assert np.abs(blocks[1] - expected).max() < 2e-16


def test_log_gamma() -> None:
    for x in (1.0, 13.0, 1e4):
        assert float(log_gamma(np.float32(x))) == pytest.approx(math.lgamma(x), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("mean", [0.3, 5.0, 11.9, 12.0, 300.0, 5e5, 4e6])
def test_noise_has_the_mean_and_variance_of_poisson(mean: float) -> None:
    state, seed, spare = Generator().state, np.array([-3]), np.zeros(2, dtype=np.float32)
    n = 40000
    drawn = np.array([float(poisson(np.float32(mean), state, seed, spare)) for _ in range(n)])
    assert drawn.mean() == pytest.approx(mean, abs=5 * math.sqrt(mean / n))
    assert drawn.var() == pytest.approx(mean, rel=0.1)


def test_masked_pixels_consume_one_deviate_and_overloads_are_clipped() -> None:
    state, seed = Generator().state, np.array([-3])
    out = np.zeros((1, 3), dtype=np.uint16)
    photons, overloads = add_noise(np.array([[0.0, 1e5, 0.0]], dtype=np.float32), 40.0, state, seed, out)
    assert out.tolist() == [[40, 65535, 40]]
    assert overloads == 1
    assert photons == pytest.approx(1e5, rel=0.02)
