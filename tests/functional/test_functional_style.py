import math

import pytest
import torch
from torch.nn import functional as F

from zoo.functional.style import (
    BANDS,
    adain,
    channel_statistics,
    content_distance,
    gram,
    histogram_distance,
    keep_colors,
    masked_gram,
    noise_like,
    out_of_range,
    patch_gram,
    patches,
    radial_spectrum,
    spectrum_distance,
    style_distance,
    total_variation,
    whitened_distance,
    whitener,
)


def maps(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(*shape, seed=0):
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gram_is_the_papers_sum_over_positions():
    f = maps(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 3, dtype=torch.float64)
    for b in range(2):
        for i in range(3):
            for j in range(3):
                expected[b, i, j] = sum(f[b, i, y, x] * f[b, j, y, x] for y in range(4) for x in range(5)) / 20
    assert torch.allclose(gram(f), expected, rtol=1e-13)


def test_gradients_are_those_of_plain_torch():
    """Gatys 2015, equations 3 to 6, in a few lines of einsum, divided by the target's norm."""
    f, target = maps(2, 3, 4, 5).requires_grad_(), gram(maps(1, 3, 6, 7, seed=1))
    (ours,) = torch.autograd.grad(style_distance(gram(f), target).sum(), f)
    apart = torch.einsum("bihw,bjhw->bij", f, f) / 20 - target
    loss = (apart**2).sum() / (target**2).sum()
    (theirs,) = torch.autograd.grad(loss, f)
    closed = 4 / 20 * torch.einsum("bij,bjhw->bihw", apart, f) / (target**2).sum()
    assert torch.allclose(ours, theirs, rtol=1e-12)
    assert torch.allclose(ours, closed, rtol=1e-12)
    assert torch.autograd.gradcheck(lambda x: style_distance(gram(x), target), (f,))


def test_half_precision_is_not_for_correlations():
    f, x = maps(2, 3, 4, 5).float(), images(1, 3, 9, 8).float()
    with torch.autocast("cpu", torch.bfloat16):
        halves = gram(f), masked_gram(f, torch.ones(1, 1, 4, 5)), patch_gram(x)
        apart = whitened_distance(gram(f), gram(f[:1]), torch.eye(3)[None])
    for half, whole in zip(halves, (gram(f), gram(f), patch_gram(x)), strict=True):
        assert torch.allclose(half, whole, rtol=1e-6)
    assert torch.allclose(apart, (gram(f) - gram(f[:1])).square().sum((1, 2)) / 3, rtol=1e-6)


def test_style_distance_does_not_depend_on_scale_or_on_the_rest_of_the_batch():
    a, b = gram(maps(2, 3, 4, 4)), gram(maps(1, 3, 4, 4, seed=1))
    assert torch.allclose(style_distance(7 * a, 7 * b), style_distance(a, b))
    assert torch.allclose(style_distance(a, b)[1:], style_distance(a[1:], b))
    assert style_distance(a, a).tolist() == [0, 0]
    assert style_distance(torch.zeros_like(b), b).tolist() == [1]


def test_a_masked_gram_is_that_of_the_part_alone():
    f = maps(2, 3, 4, 6)
    left = torch.zeros(1, 1, 4, 6, dtype=torch.float64)
    left[..., :2] = 1
    assert torch.allclose(masked_gram(f, left), gram(f[..., :2]))
    assert torch.allclose(masked_gram(f, torch.ones_like(left)), gram(f))
    assert torch.allclose(masked_gram(f, left / 2), gram(f[..., :2]))
    finer = left.repeat_interleave(3, 2).repeat_interleave(3, 3)
    assert torch.allclose(masked_gram(f, finer), gram(f[..., :2]))
    assert masked_gram(f, torch.zeros_like(left)).abs().max() == 0


def test_patches_hold_each_pixels_neighbours():
    x = images(2, 3, 5, 6)
    maps_ = patches(x)
    assert maps_.shape == (2, 28, 3, 4)
    assert torch.equal(maps_[1, :27, 2, 1], x[1, :, 2:5, 1:4].flatten() - 0.5)
    lag = (x[0, 1, 1:4, 1:5] - 0.5) * (x[0, 1, 1:4, 2:6] - 0.5)  # green, centre and its right neighbour
    assert torch.allclose(gram(maps_)[0, 9 + 4, 9 + 5], lag.mean())
    assert torch.allclose(gram(maps_)[0, 27, :27], 0.2 * maps_[0, :27].mean((1, 2)))


@pytest.mark.parametrize("strip", [1, 40, 10**6])
@pytest.mark.parametrize("masked", [False, True])
def test_strips_give_what_the_whole_picture_gives(strip, masked, monkeypatch):
    monkeypatch.setattr("zoo.functional.style.STRIP", strip)
    x, mask = images(2, 3, 13, 11).requires_grad_(), images(1, 1, 20, 17, seed=1)
    weights, whole = maps(2, 28, 28, seed=2), masked_gram(patches(x), mask) if masked else gram(patches(x))
    ours = patch_gram(x, mask if masked else None)
    assert torch.allclose(ours, whole, rtol=1e-12)
    found, wanted = (torch.autograd.grad((weights * g.tanh()).sum(), x)[0] for g in (ours, whole))
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-14)


def test_every_direction_counts_alike_in_white_coordinates():
    target = gram(maps(2, 4, 9, 9) * torch.tensor([10, 1, 0.1, 3]).view(1, 4, 1, 1))
    white = whitener(target, floor=0)
    assert torch.allclose(white @ target @ white.transpose(1, 2), torch.eye(4).double().expand(2, 4, 4))
    mixing = maps(4, 4, seed=1)
    mixed = mixing @ target @ mixing.T
    other = gram(maps(2, 4, 9, 9, seed=2))
    expected = whitened_distance(other, target, white)
    found = whitened_distance(mixing @ other @ mixing.T, mixed, whitener(mixed, floor=0))
    assert torch.allclose(found, expected)  # whatever basis the maps are in
    assert torch.allclose(whitened_distance(0 * target, target, white), torch.ones(2).double())
    assert whitened_distance(target, target, white).tolist() == [0, 0]


def test_noise_has_the_colours_and_nothing_else():
    picture = images(2, 3, 50, 60) * torch.tensor([0.3, 0.1, 0.2]).view(1, 3, 1, 1) + 0.3
    picture[:, 2] = 0.5 * picture[:, 0] + 0.2
    noise = noise_like(picture, [80, 90], torch.Generator().manual_seed(0))
    assert noise.shape == (2, 3, 80, 90)
    for b in range(2):
        assert torch.allclose(noise[b].mean((1, 2)), picture[b].mean((1, 2)), atol=5e-3)
        assert torch.allclose(torch.cov(noise[b].flatten(1)), torch.cov(picture[b].flatten(1)), atol=3e-4)
    assert (radial_spectrum(noise)[:, 2:] / noise.mean(1).var((1, 2))[:, None] - 1).abs().max() < 0.4  # white
    assert torch.equal(noise, noise_like(picture, [80, 90], torch.Generator().manual_seed(0)))


def test_content_distance_is_a_share_of_the_variation():
    f = maps(2, 3, 4, 5)
    assert content_distance(f, f).tolist() == [0, 0]
    assert torch.allclose(content_distance(f.mean((2, 3), keepdim=True).expand_as(f), f), torch.ones(2).double())
    flat = torch.full_like(f, 2.0)  # a blank wall does not vary
    assert torch.allclose(content_distance(flat + 0.02, flat), torch.ones(2).double())
    g = maps(2, 3, 4, 5, seed=1)
    assert torch.allclose(content_distance(g, f)[0], ((g - f)[0] ** 2).sum() / (f[0].var((1, 2)).sum() * 19))


def test_total_variation_is_the_mean_of_squared_steps():
    ramp = torch.arange(5, dtype=torch.float64).mul(0.1).expand(1, 2, 4, 5)
    assert total_variation(ramp).item() == pytest.approx(0.01)
    board = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(3, 3).view(1, 1, 6, 6)
    assert total_variation(board).item() == 2
    assert total_variation(torch.cat([board, 0 * board])).tolist() == [2, 0]


def test_only_what_leaves_the_range_counts():
    assert torch.allclose(out_of_range(torch.tensor([-0.2, 0.0, 1.0, 1.1]).view(1, 1, 2, 2)), torch.tensor(0.05 / 4))


def test_adain_gives_the_styles_statistics():
    content, style = maps(2, 3, 8, 9), 3 * maps(1, 3, 5, 6, seed=1) + 2
    mean, deviation = channel_statistics(style, eps=0)
    assert torch.allclose(mean.flatten(), style.flatten(2).mean(2).flatten())
    assert torch.allclose(deviation.flatten(), style.flatten(2).std(2, correction=0).flatten())
    found = channel_statistics(adain(content, style, eps=0), eps=0)
    assert torch.allclose(found[0], mean.expand(2, -1, -1, -1))
    assert torch.allclose(found[1], deviation.expand(2, -1, -1, -1))


def test_adain_is_torchs_instance_norm_with_the_styles_affine():
    content, style = maps(1, 3, 8, 9), maps(1, 3, 5, 6, seed=1)
    mean, deviation = channel_statistics(style)
    expected = F.instance_norm(content, weight=deviation.flatten(), bias=mean.flatten(), eps=1e-5)
    assert torch.allclose(adain(content, style), expected)
    assert torch.autograd.gradcheck(lambda x: adain(x, style), (content.requires_grad_(),))


def test_colours_are_the_contents_and_luminance_the_results():
    result, content = images(2, 3, 4, 5) * 0.2 + 0.4, images(2, 3, 4, 5, seed=1) * 0.2 + 0.4
    made = keep_colors(result, content)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)
    assert torch.allclose((made * luma).sum(1), (result * luma).sum(1))
    for a, b in ((0, 1), (2, 1)):  # a shift in luminance alone moves all three channels alike
        assert torch.allclose((made[:, a] - made[:, b]), (content[:, a] - content[:, b]), atol=1e-5)
    assert torch.allclose(keep_colors(content, content), content, atol=1e-12)
    assert keep_colors(torch.ones(1, 3, 2, 2), torch.rand(1, 3, 2, 2)).max() <= 1


def test_histogram_distance_is_what_must_be_moved():
    from scipy.stats import wasserstein_distance

    a = images(2, 3, 40, 50) * 0.5
    assert torch.allclose(histogram_distance(a + 0.25, a), torch.full((2,), 0.25, dtype=torch.float64))
    assert histogram_distance(a.flip(-1).transpose(2, 3), a).abs().max() == 0
    b = images(1, 3, 64, 32, seed=1) ** 2
    expected = sum(wasserstein_distance(a[0, c].flatten(), b[0, c].flatten()) for c in range(3)) / 3
    assert histogram_distance(a[:1], b).item() == pytest.approx(expected, abs=2e-3)


def wave(cycles, size=64):
    x = torch.arange(size, dtype=torch.float64)
    return 0.5 + 0.4 * torch.sin(2 * math.pi * cycles * x).expand(1, 3, size, size)


def test_a_wave_is_in_the_band_of_its_frequency():
    for cycles, band in ((0.081, 1), (0.162, 5), (0.324, 9)):  # the middles of quarters of an octave
        for picture in (wave(cycles), wave(cycles).transpose(2, 3)):
            assert radial_spectrum(picture)[0].argmax() == band
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    assert radial_spectrum(board.double().expand(1, 3, 64, 64))[0].argmax() == BANDS - 1


def test_white_noise_has_the_same_power_in_every_band():
    noise = 0.1 * maps(4, 1, 128, 128)
    assert (radial_spectrum(noise).mean(0) / 0.01 - 1).abs().max() < 0.2


def test_spectrum_distance_is_in_decibels():
    noise = maps(1, 3, 64, 64)
    assert spectrum_distance(noise * math.sqrt(2), noise).item() == pytest.approx(3.01, abs=0.01)
    assert spectrum_distance(noise, noise).item() == 0
    assert spectrum_distance(maps(1, 3, 128, 96, seed=1), noise).item() < 2
    blurred = F.avg_pool2d(noise, 3, 1, 1)
    assert spectrum_distance(blurred, noise).item() > 5
    assert spectrum_distance(images(1, 3, 24, 20), images(1, 3, 24, 20, seed=1)).isfinite().all()
