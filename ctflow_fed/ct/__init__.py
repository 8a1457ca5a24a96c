"""Scanner <-> tensors: volumes, files, phantoms, codecs, reports, the latent store."""
