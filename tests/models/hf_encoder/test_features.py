"""Features equal transformers' own on the same pixels, and have the derivatives that training asks for."""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mama_ray.errors import UserError
from mama_ray.models.hf_encoder.architectures import ARCHITECTURES
from mama_ray.models.hf_encoder.load import load_directory
from mama_ray.models.hf_encoder.model import HfEncoder
from mama_ray.weighting.chosen_clips import ChosenClips
from mama_ray.weighting.directional import directional_pass
from mama_ray.weighting.tape import Tape
from tests.models.hf_encoder.hf_models import BUILDERS, CONTEXT, PAD, build, clips, texts, theirs

KINDS = [name for name in BUILDERS if name != "pe_video" or importlib.util.find_spec("timm")]
IMAGES = [name for name in KINDS if not ARCHITECTURES[name].takes_videos]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of transformers by architecture, with the model that is in them."""
    made = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        made[kind] = folder, build(kind)
        made[kind][1].save_pretrained(folder)
        if kind == "pe_video":
            (folder / "video_preprocessor_config.json").write_text('{"size": {"height": 16, "width": 16}}')
    return made


@pytest.fixture(params=KINDS)
def pair(request, folders):
    folder, hf = folders[request.param]
    return load_directory(folder)[0].eval(), hf


def test_every_architecture_is_compared():
    assert set(BUILDERS) == set(ARCHITECTURES)


def test_features_equal_transformers_own(pair):
    ours, hf = pair
    videos, words = theirs(hf, clips(), texts())
    if not ours.architecture.takes_videos:
        one_frame = ours.encode_video(clips()[:, :1])
        torch.testing.assert_close(one_frame, videos[:, 0], rtol=0, atol=1e-5)
        videos = F.normalize(videos.mean(dim=1), dim=-1)
    torch.testing.assert_close(ours.encode_video(clips()), videos, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.encode_text(texts()), words, rtol=0, atol=1e-5)


def test_another_number_of_frames_is_interpolated_as_transformers_does(folders):
    folder, hf = folders["videoprism"]
    frames = clips(num_frames=5)
    torch.testing.assert_close(
        load_directory(folder)[0].eval().encode_video(frames), theirs(hf, frames, texts())[0], rtol=0, atol=1e-5
    )


def test_siglip_2_takes_a_larger_grid_as_transformers_does(folders):
    folder, hf = folders["siglip2"]
    frames = clips(num_frames=1, side=40)
    ours = load_directory(folder, image_size=40)[0].eval().encode_video(frames)
    torch.testing.assert_close(ours, theirs(hf, frames, texts())[0][:, 0], rtol=0, atol=1e-5)


def test_filling_up_a_text_does_not_change_its_feature(pair):
    ours, _ = pair
    short = texts()[:1, :3]
    whole = F.pad(short, (0, CONTEXT - 3), value=PAD)
    torch.testing.assert_close(ours.encode_text(short), ours.encode_text(whole), rtol=0, atol=1e-6)


def test_scale_is_a_logarithm_whatever_the_folder_has(pair):
    ours, hf = pair
    own = {"pe_video": torch.tensor(10.0).log(), "videoprism": torch.tensor(1 / 0.07).log()}
    assert ours.logit_scale.item() == pytest.approx(own.get(hf.config.model_type, torch.tensor(3.0)).item())
    assert ours.logit_scale.shape == ()
    assert hasattr(ours, "logit_bias") == (ours.architecture.bias is not None)


@pytest.mark.parametrize("kind", IMAGES)
def test_learned_pooling_starts_at_the_mean_and_then_sees_the_order(folders, kind):
    folder, _ = folders[kind]
    mean = load_directory(folder)[0].eval()
    torch.manual_seed(0)
    learned, report = load_directory(folder, temporal_layers=2)
    assert all(name.startswith("pooling.") for name in report.fresh) and "pooling.projection.weight" in report.fresh
    frames = clips()
    torch.testing.assert_close(learned.encode_video(frames), mean.encode_video(frames), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean.encode_video(frames.flip(1)), mean.encode_video(frames), rtol=0, atol=1e-6)
    with torch.no_grad():
        learned.pooling.projection.weight.normal_()
        learned.pooling.temporal_embedding.normal_()
    assert (learned.encode_video(frames.flip(1)) - learned.encode_video(frames)).abs().max() > 0.01
    assert learned.encode_video(clips(num_frames=7)).shape == learned.encode_video(frames).shape


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_agrees_with_reverse_mode_and_with_the_pass_of_training(folders, kind):
    model = load_directory(folders[kind][0], **({"temporal_layers": 1} if kind in IMAGES else {}))[0]
    model = model.to(torch.float64).train()
    assert isinstance(model, HfEncoder)
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    torch.manual_seed(3)
    direction = {name: torch.randn_like(value) / value.numel() ** 0.5 for name, value in parameters.items()}
    inputs = (clips(), texts())
    with sdpa_kernel(SDPBackend.MATH):
        _, tangents = jvp(lambda p: functional_call(model, p, inputs), (parameters,), (direction,))
    features = model(*inputs)
    cotangents = [torch.randn_like(one) for one in features]
    loss = sum(((w * one).sum() for w, one in zip(cotangents, features, strict=True)), torch.zeros(()))
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    forth = sum((w * one).sum() for w, one in zip(cotangents, tangents, strict=True))
    back = sum((gradient * direction[name]).sum() for name, gradient in zip(parameters, gradients, strict=True))
    # RMS norms and rotary angles of PE are float32 whatever the weights are.
    torch.testing.assert_close(forth, back, rtol=1e-4 if kind == "pe_video" else 1e-9, atol=0)

    tape = Tape()
    with tape.record():
        model(*inputs)
    with directional_pass(tape):
        duals = {name: forward_ad.make_dual(value, direction[name]) for name, value in parameters.items()}
        replayed = [forward_ad.unpack_dual(one).tangent for one in functional_call(model, duals, inputs)]
    for ours, wanted in zip(replayed, tangents, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4 if kind == "pe_video" else 1e-9, atol=1e-12)

    rows, tape = torch.tensor([1]), Tape()  # of a clip alone: its rows of what was kept, and all texts
    with tape.record():
        model(*inputs)
    with directional_pass(tape, ChosenClips(rows, len(inputs[0]))):
        duals = {name: forward_ad.make_dual(value, direction[name]) for name, value in parameters.items()}
        outputs = functional_call(model, duals, (inputs[0][rows], inputs[1]))
        of_part = [forward_ad.unpack_dual(one).tangent for one in outputs]
    for ours, wanted in zip(of_part, (tangents[0][rows], tangents[1]), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4 if kind == "pe_video" else 1e-9, atol=1e-12)


def test_frames_and_texts_that_do_not_fit_are_told(folders):
    model = load_directory(folders["siglip"][0])[0]
    with pytest.raises(UserError, match="frames do not fit the video encoder"):
        model.encode_video(clips(side=24))
    with pytest.raises(UserError, match="more tokens than the text encoder has positions: got 11, wanted at most 10"):
        model.encode_text(F.pad(texts(), (0, 1)))
