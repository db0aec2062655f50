"""Physical constants of X-ray scattering."""

R_E_SQUARED = 7.94079248018965e-30
"""Square of the classical electron radius [m^2] (Thomson scattering of one electron into one steradian)."""

AVOGADRO = 6.02214179e23
"""Particles in a mole."""

HC_EV_A = 12398.42
"""Photon energy times wavelength [eV Angstrom]."""
