"""Speed of the diffuse simulator: ``python benchmarks/diffuse.py [--large] [--folded] [--single] [atoms ...]``.

A helix crystal in P 21 21 21 is repeated within its asymmetric unit until the cell holds about that many atoms. Forward
and gradient (springs and coordinates) of a map of about 450,000 points, with and without folding by Laue symmetry;
``--large``: 3.5 million points; ``--folded``: only with folding; ``--single``: every atom moves by itself, 7,000
points. Medians, after a first run that also starts the process's libraries. Times include the search for contacts and
the folding. benchmarks/results/diffuse.json keeps what is measured.
"""

import argparse
import json
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from machine import machine

from refine.experiment.atoms import build_structure
from refine.formats.models import read_model
from sim_core.diffuse.bodies import Bodies, RigidUnits, SingleAtoms
from sim_core.diffuse.brillouin import Sampling, fold, grid, unique_wavevectors
from sim_core.diffuse.elastic_network import Springs, find_contacts
from sim_core.diffuse.one_phonon import OnePhonon
from sim_core.diffuse.structure import Placed, cell_positions, packed, placed, scattering_vectors

MODEL = Path(__file__).parents[1] / "tests/golden/one_phonon/helix_p212121/helix_p212121.pdb"


def crystal(atoms: int) -> tuple[Placed, torch.Tensor]:
    """The helix repeated along b and c of a cell that grows with it, and the rotations of the space group."""
    model = read_model(MODEL)
    one = placed(build_structure(model), torch.from_numpy(model.basis))
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


def measure(atoms: int, halves: tuple[int, int, int], folded: bool, bodies: Bodies) -> dict:
    """Seconds of one value and gradient, and of the preparation before it."""
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
    intensity = OnePhonon(contacts, bodies)(moved, Springs(*gamma.unbind()), q, unique_wavevectors(points))
    intensity = intensity[folding.row] if folded else intensity
    intensity.nan_to_num().sum().backward()
    return {
        "atoms": structure.units * structure.atoms,
        "points": len(hkl),
        "computed": len(points),
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - cpu,
        "preparation_s": prepared,
    }


def median(atoms: int, halves: tuple[int, int, int], folded: bool, bodies: Bodies, repeats: int) -> dict:
    """Medians of several runs, printed."""
    runs = [measure(atoms, halves, folded, bodies) for _ in range(repeats)]
    row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    row |= {"bodies": type(bodies).__name__, "folded": folded, "runs": repeats}
    row["peak_GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{row['atoms']:6d} atoms, {row['bodies']:11s} {row['points']:8d} points, {row['computed']:8d} computed: "
        f"{row['wall_s']:7.2f} s wall (preparation {row['preparation_s']:.2f}), {row['cpu_s']:7.2f} CPU-s, "
        f"peak {row['peak_GiB']:.2f} GiB",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("large", "folded", "single"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("atoms", type=int, nargs="*", default=[500, 8000])
    options = parser.parse_args()
    scale = 2 if options.large else 1
    halves = (3, 3, 3) if options.single else (12 * scale, 12 * scale, 14 * scale)
    bodies: Bodies = SingleAtoms() if options.single else RigidUnits()
    measure(500, (3, 3, 3), True, bodies)
    rows = []
    for atoms in options.atoms:
        rows.append(median(atoms, halves, True, bodies, 1 if options.single else 5))
        if not options.folded and not options.single:
            rows.append(median(atoms, halves, False, bodies, 3 if atoms < 1000 else 1))
            print(f"folding: {rows[-1]['wall_s'] / rows[-2]['wall_s']:.1f} times faster")
    kept = Path(__file__).parent / "results" / "diffuse.json"
    told = json.loads(kept.read_text())["rows"] if kept.is_file() else []
    key = ("atoms", "points", "computed", "bodies")
    told = [old for old in told if all([old[k] for k in key] != [new[k] for k in key] for new in rows)]
    kept.write_text(json.dumps({"machine": machine(), "rows": told + rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
