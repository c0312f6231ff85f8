"""Images made from OpenMoji drawings: real input for the whole road where no photos are at hand."""
