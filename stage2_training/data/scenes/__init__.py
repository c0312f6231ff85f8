"""Images composed of OpenMoji drawings: real input for the whole pipeline when no photos are available."""
