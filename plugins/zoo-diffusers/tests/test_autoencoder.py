"""The two halves of the library's variational autoencoder."""

from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from zoo_diffusers.autoencoder import EXAMPLE, KLDecoder, KLEncoder, whole
from zoo_diffusers.folders import write

from zoo.errors import UserError
from zoo.facts import Facts
from zoo.tasks.vae import VAE

SIZES: dict[str, Any] = {"in_channels": 1, "image_size": [8, 8]}


def halves(**arguments: Any) -> tuple[KLEncoder, KLDecoder]:
    torch.manual_seed(0)
    known = {**EXAMPLE, **SIZES, **arguments}
    return KLEncoder(**known).eval(), KLDecoder(**known).eval()


@torch.no_grad()
def test_both_halves_are_the_librarys_network_and_read_back(tmp_path: Path) -> None:
    encoder, decoder = halves()
    whole(encoder, decoder).save_pretrained(tmp_path / "pipeline/vae")
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path / "pipeline/vae")
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    found, z = theirs.encode(images).latent_dist, torch.randn(3, *encoder.latent_shape)
    assert encoder.latent_shape == decoder.latent_shape == (2, 4, 4)
    for place in (tmp_path / "pipeline", tmp_path / "pipeline/vae"):
        torch.manual_seed(9)
        again = [cls(**EXAMPLE, **SIZES, pretrained=str(place)).eval() for cls in (KLEncoder, KLDecoder)]
        for one, other in ((encoder, decoder), again):
            mean, log_variance = one(images)
            torch.testing.assert_close(mean, found.mean)
            torch.testing.assert_close(log_variance, found.logvar)
            torch.testing.assert_close(other(z), theirs.decode(z).sample)


@torch.no_grad()
def test_sides_that_do_not_fit_and_a_likelihood_of_two_parameters() -> None:
    encoder, _ = halves(image_size=[7, 10])
    _, decoder = halves(image_size=[7, 10], in_channels=2)
    mean, log_variance = encoder(torch.rand(2, 1, 7, 10))
    assert mean.shape == log_variance.shape == (2, *decoder.latent_shape) == (2, 2, 4, 5)
    assert decoder(mean).shape == (2, 2, 7, 10)
    assert whole(encoder, decoder).config.out_channels == 2


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    encoder, decoder = halves()
    whole(encoder, decoder).save_pretrained(tmp_path / "weights")
    wider = {"config": {**EXAMPLE["config"], "latent_channels": 3}}
    with pytest.raises(UserError, match=r"give config: \{'latent_channels': 2\}"):
        KLEncoder(**wider, **SIZES, pretrained=str(tmp_path / "weights"))
    with pytest.raises(UserError, match="not halves of one AutoencoderKL"):
        whole(encoder, KLDecoder(**wider, **SIZES))
    with pytest.raises(UserError, match="has no latent_chanels here; did you mean latent_channels"):
        KLEncoder({"latent_chanels": 3})


@torch.no_grad()
def test_the_task_trains_them_and_its_folder_opens_with_the_library(tmp_path: Path) -> None:
    facts = Facts(in_channels=1, image_size=[8, 8])
    task = VAE(partial(KLEncoder, **EXAMPLE), partial(KLDecoder, **EXAMPLE), facts=facts)
    task.configure_model()
    (remark,) = write(task.eval(), tmp_path / "written")
    assert remark.endswith(f"{task.likelihood.parameters} for each pixel, not images")
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path / "written")
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    mean, _ = task.encoder(images)
    torch.testing.assert_close(theirs.encode(images).latent_dist.mean, mean)
    torch.testing.assert_close(theirs.decode(mean).sample, task.decoder(mean))
    assert task.sample(torch.arange(2)).shape == (2, 1, 8, 8)
