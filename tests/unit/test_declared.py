"""Every parameter: declared once, with defaults that the configuration shows, and free where a term reads it."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from refine.build import build
from refine.compose import CONFIGS, load
from refine.parameters.declared import DECLARED, GIVEN
from refine.settings.schema import Settings
from refine.terms.term import ATOMS, BEAM, CRYSTAL, DETECTOR

IMAGE = ["experiment=mosaic_misset", "detector.pixels=[16,12]", "truth.mosaic_domains=5", "schedule.capture_deg=0"]
MAP = ["experiment=gamma_xyz", "diffuse.points=20"]
NEEDS = {
    "ice": ["simulator.ice=true"],
    "ice_width": ["simulator.ice=true"],
    "divergence_rms_mrad": ["simulator=closed_form", "initial.divergence_rms_mrad=0.2"],
    "bandwidth_rms_percent": ["simulator=closed_form", "initial.bandwidth_rms_percent=0.1"],
}


def group(name: str) -> dict:
    """A group of the configuration by itself."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        found = OmegaConf.to_container(compose(f"{name}")[name.split("/")[0]])
    assert isinstance(found, dict)
    return found


def test_the_configuration_shows_every_declaration():
    assert group("parameters/default") == {name: d.defaults() for name, d in DECLARED.items()}
    initial, truth = group("initial/aligned"), group("truth/unknown")
    assert {name: initial[name] for name in GIVEN} == {name: DECLARED[name].start for name in GIVEN}
    assert {name: truth[name] for name in GIVEN} == dict.fromkeys(GIVEN)


def test_the_schema_has_a_key_for_every_declaration():
    fields = Settings.model_fields
    assert list(fields["parameters"].annotation.model_fields) == list(DECLARED)
    for section in ("initial", "truth"):
        assert set(GIVEN) <= set(fields[section].annotation.model_fields)


def test_terms_read_what_is_declared():
    assert set(DECLARED) >= BEAM | DETECTOR | CRYSTAL | ATOMS
    for overrides in ([*IMAGE, "simulator.ice=true"], MAP):
        (frame,) = build(load(*overrides)).frames
        assert set(frame.model.reads) <= set(DECLARED)
        assert set(frame.initial) <= set(DECLARED)


@pytest.mark.parametrize("name", DECLARED)
def test_every_parameter_can_be_free(name):
    plain = MAP if name in ("gamma_intra", "gamma_inter", "xyz", "b_atoms") else IMAGE
    settings = load(*plain, *NEEDS.get(name, []), f"parameters.{name}.free=true")
    refinement, declared = build(settings), DECLARED[name]
    spec, choice = refinement.refined.specs[name], getattr(settings.parameters, name)
    assert spec.free and name in refinement.refined.free
    assert (choice.scale, choice.lower, choice.upper) == (declared.scale, declared.lower, declared.upper)
    assert (spec.scale, spec.lower, spec.upper, spec.log) == (choice.scale, choice.lower, choice.upper, declared.log)
    assert [spec.unit(i) for i in range(spec.size)] == [declared.unit_of(i) for i in range(spec.size)]
    assert set(spec.labels) <= {name} | {f"{name}_{c}" for c in spec.components or declared.components or ()}
    (frame,) = refinement.frames
    assert name in frame.model.reads
