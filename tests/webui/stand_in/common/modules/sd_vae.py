"""No VAE besides the model's own."""


def delete_base_vae() -> None:
    """None is kept."""
