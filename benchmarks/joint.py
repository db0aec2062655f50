"""Speed and memory of one step on a joint image: ``python benchmarks/joint.py [--single] [--pixels 512]``.

A crystal of helices in P 21 21 21 with 528 atoms in its cell, blocks of 8 x 8 x 6 cells: spots in closed form and the
diffuse scattering between them, ten free parameters (misset, mosaic spread, lengths of the cell, scale, both spring
constants). One step is the normal equations at the start, in a process of its own that has done a small image before;
beside it the same without diffuse scattering (eight parameters), and a diffuse map of a grid with as many points (both
spring constants). The results go to ``benchmarks/results/joint.json``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gemmi
from diffuse import crystal
from machine import machine

HERE = Path(__file__).parent
FREE = ["misset_deg", "mosaic_spread_deg", "cell", "scale", "gamma_intra", "gamma_inter"]


def write_model(path: Path) -> None:
    """The repeated helix as a PDB file: carbon, nitrogen and oxygen in turn, as scatterers of alike power."""
    atoms, _ = crystal(528)
    structure, chain, residue = gemmi.Structure(), gemmi.Chain("A"), gemmi.Residue()
    structure.cell = gemmi.UnitCell(*atoms.basis.norm(dim=-1).tolist(), 90, 90, 90)
    structure.spacegroup_hm = "P 21 21 21"
    residue.name, residue.seqid = "UNK", gemmi.SeqId("1")
    for number, (x, b) in enumerate(zip(atoms.xyz.tolist(), atoms.b_iso.tolist(), strict=True)):
        atom = gemmi.Atom()
        atom.name, atom.element = f"C{number}", gemmi.Element("CNO"[number % 3])
        atom.pos, atom.b_iso = gemmi.Position(*x), b
        residue.add_atom(atom)
    chain.add_residue(residue)
    model = gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.make_mmcif_document().write_file(str(path))


def overrides(what: str, pixels: int, model: Path, dtype: str) -> list[str]:
    """The configuration of a case."""
    common = [f"model.path={model}", f"dtype={dtype}", "diffuse.cutoff_A=4", "logger=none"]
    common += ["truth.gamma_intra=2", "truth.gamma_inter=4"]
    if what == "map":
        half = max(1, round((pixels ** (2 / 3) - 1) / 6))
        grid = [f"diffuse.sampling.{axis}=[-{half},{half},3]" for axis in "hkl"]
        return [*common, *grid, "parameters.gamma_intra.free=true", "parameters.gamma_inter.free=true"]
    free = FREE[:-2] if what == "Bragg" else FREE
    image = ["experiment=mosaic_misset", "simulator=closed_form", "truth.simulator=closed_form"]
    image += ["structure_factors.source=atoms", "model.adp=network", "crystal.n_cells=[8,8,6]", "crystal.cell=null"]
    image += [
        f"detector.pixels=[{pixels},{pixels}]",
        f"detector.pixel_size_mm={48 / pixels}",
        "detector.distance_mm=45",
    ]
    image += ["detector.distance_mm=45", "detector.oversample=1"]
    image += ["truth.misset_deg=[8,-5,13]", "truth.mosaic_spread_deg=0.2", "schedule=none"]
    image += ["initial.misset_deg=[8,-5,13]", "initial.mosaic_spread_deg=0.2", "data.noise=poisson"]
    image += [f"parameters.{name}.free=true" for name in free]
    return common + image + (["simulator.diffuse=one_phonon"] if what == "joint" else [])


def measure(what: str, pixels: int, model: Path, dtype: str) -> dict[str, object]:
    """Seconds of one step and the largest memory of the process, which this is meant to have for itself."""
    import resource

    import refine  # noqa: F401  (before torch: how threads wait)
    from refine.build import build
    from refine.compose import load

    def step(size: int) -> tuple[float, float, int, int]:
        refinement = build(load(*overrides(what, size, model, dtype)))
        refinement.prepare()
        vector = refinement.refined.vector()
        start, cpu = time.perf_counter(), time.process_time()
        refinement.normal_equations(vector)
        return time.perf_counter() - start, time.process_time() - cpu, len(refinement.observed), len(vector)

    step(32)
    wall, cpu, points, free = step(pixels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = {"case": what, "points": points, "free": free, "dtype": dtype}
    return found | {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_GiB": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--single", action="store_true", help="single precision")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "MODEL"), help="one case in this process")
    options = parser.parse_args()
    dtype = "float32" if options.single else "float64"
    if options.case:
        print(json.dumps(measure(options.case[0], options.pixels, Path(options.case[1]), dtype)))
        return
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "helices.cif"
        write_model(model)
        for what in ("Bragg", "joint", "map"):
            command = [sys.executable, __file__, "--pixels", str(options.pixels), "--case", what, str(model)]
            command += ["--single"] if options.single else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(" ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
    (HERE / "results" / "joint.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
