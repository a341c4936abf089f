"""The programs that a training runs beside: a WebUI that has the same GPU, or none."""
