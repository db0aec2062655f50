"""The configuration outside the command line: compose and check it from Python."""

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from refine.parameters.declared import defaults
from refine.paths import REPOSITORY
from refine.settings.schema import Settings, validate

CONFIGS = REPOSITORY / "configs"


def _run_folder(given: str | None, experiment: str, time: str) -> str:
    """The run folder: as given, or ``outputs/EXPERIMENT/TIME``."""
    return given or str(REPOSITORY / "outputs" / experiment / time)


OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)
for _group, _keys in defaults().items():
    ConfigStore.instance().store(name="declared", node=_keys, group=_group, provider="refine.parameters")


def load(*overrides: str) -> Settings:
    """Settings as ``refine/train.py`` would see them.

    Args:
        overrides: As on the command line: ``experiment=mosaic_misset``, ``beam.fluence=1e30``.

    Raises:
        InputError: if a value is wrong.
        hydra.errors.HydraException: if a key or a group does not exist.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    name = str(config.hydra.runtime.choices.experiment)
    config.experiment_name = name
    del config.hydra
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return validate({str(k): v for k, v in plain.items()})
