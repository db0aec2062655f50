"""Speed of the diffuse simulator: ``python benchmarks/diffuse.py [--large] [--folded] [atoms ...]``.

A helix crystal in P 21 21 21 is repeated within its asymmetric unit until the cell holds about that many atoms. Forward
and gradient (springs and coordinates) of a map of about 450,000 points, with and without folding by Laue symmetry;
``--large``: 3.5 million points; ``--folded``: only with folding. What is folded is measured three times: the first
time in a process also starts its libraries. Times include the search for contacts and the folding.
"""

import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from refine.diffuse_builders import build_structure
from refine.formats.models import read_model
from sim_core.diffuse.brillouin import Sampling, fold, grid, unique_wavevectors
from sim_core.diffuse.elastic_network import Springs, find_contacts
from sim_core.diffuse.one_phonon import OnePhonon
from sim_core.diffuse.structure import Structure, cell_positions, packed, scattering_vectors

MODEL = Path(__file__).parents[1] / "tests/golden/one_phonon/helix_p212121/helix_p212121.pdb"


def crystal(atoms: int) -> tuple[Structure, torch.Tensor]:
    """The helix repeated along b and c of a cell that grows with it, and the rotations of the space group."""
    model = read_model(MODEL)
    one = build_structure(model)
    copies = max(1, round(atoms / (one.units * one.atoms)))
    along_b = max(1, round(copies**0.5))
    along_c = -(-copies // along_b)
    size = torch.tensor([1.0, along_b, along_c], dtype=torch.float64)
    basis = one.basis * size[:, None]
    steps = torch.cartesian_prod(torch.arange(along_b), torch.arange(along_c)).double()[:copies]
    shifts = steps @ one.basis[1:]
    kind = one.form_factors.kind.repeat(copies)
    fractional = torch.from_numpy(model.translations)
    repeated = replace(
        one,
        basis=basis,
        translations=fractional @ basis,
        xyz=(one.xyz[None] + shifts[:, None]).reshape(-1, 3),
        b_iso=one.b_iso.repeat(copies),
        weight=one.weight.repeat(copies),
        mass=one.mass.repeat(copies),
        form_factors=replace(one.form_factors, kind=kind),
    )
    return packed(repeated), torch.from_numpy(model.rotations)


def measure(atoms: int, halves: tuple[int, int, int], folded: bool) -> float:
    structure, rotations = crystal(atoms)
    start, cpu = time.perf_counter(), time.process_time()
    contacts = find_contacts(cell_positions(structure), structure.basis, 4.0)
    hkl, _ = grid(*(Sampling(-n, n, 3) for n in halves))
    points = hkl
    if folded:
        folding = fold(hkl, (3, 3, 3), rotations)
        points = hkl[folding.points]
    prepared = time.perf_counter() - start
    gamma = torch.tensor([1.0, 0.6], dtype=torch.float64, requires_grad=True)
    xyz = structure.xyz.clone().requires_grad_()
    moved = replace(structure, xyz=xyz)
    q = scattering_vectors(points, structure.basis)
    intensity = OnePhonon(contacts)(moved, Springs(*gamma.unbind()), q, unique_wavevectors(points))
    intensity = intensity[folding.row] if folded else intensity
    intensity.nan_to_num().sum().backward()
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{structure.units * structure.atoms:6d} atoms {len(contacts.first):7d} contacts {len(hkl):8d} points "
        f"{'folded' if folded else 'plain':6s} {len(points):8d}: {wall:7.2f} s wall (preparation {prepared:.2f}), "
        f"{cpu:7.2f} CPU-s, peak {peak:.2f} GiB",
        flush=True,
    )
    return wall


if __name__ == "__main__":
    scale = 2 if "--large" in sys.argv else 1
    halves = (12 * scale, 12 * scale, 14 * scale)
    for count in [int(a) for a in sys.argv[1:] if not a.startswith("--")] or [500, 8000]:
        folded = sorted(measure(count, halves, True) for _ in range(3))
        if "--folded" not in sys.argv:
            plain = measure(count, halves, False)
            print(f"folding: {plain / folded[1]:.1f} times faster (median), {plain / folded[2]:.1f} (slowest)")
