"""The vocabulary of a comparison file. Names follow torchvision's reference recipes where they have one.

Every field says what it means, in which unit. Nothing here imports torch. A comparison is *resolved*
(``bench.config.resolve``) into one ``RunSpec`` per run and seed, which holds every value that matters and
whose hash is the run's identity.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bench.config.ablation import Ablation, as_sections
from bench.config.base import AtKey, Strict
from bench.config.comparing import ALL, AUC, REFERENCE, Published, Verdicts, check_auc_range, parse_budget
from bench.config.stage import Stage
from bench.registry import did_you_mean

#: Raised whenever numbers measured under the old and the new code must not be compared. Part of every row.
PROTOCOL_VERSION = 1

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
Side = Annotated[int, Field(ge=8, le=8192)]
WeightDecay = Annotated[float, Field(ge=0.0, le=10.0)]
Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=-]*$", max_length=100)]


class MethodConfig(Strict):
    """Base of every method's own options."""

    #: the class that does the work, "package.module:Class", if these options are what the package registers
    method_class: ClassVar[str] = ""

    def stages(self) -> list[Stage]:
        """The stages of training under these options, in order; the last one's network is evaluated."""
        return [Stage("train")]

    @classmethod
    def model_names(cls) -> list[str]:
        """Networks that the option ``model`` may name, for `bench list models`; default: there is no such option."""
        return []

    @classmethod
    def small(cls) -> MethodConfig:
        """The smallest sensible network for 32x32 images: what smoke and contract tests build."""
        return cls()


class Data(Strict):
    """The data set and how it is divided."""

    name: str = Field(description="A data set of `bench list datasets`.")
    root: str | None = Field(None, description="Folder that holds the data; --data-root wins over it, the "
                             "environment variable BENCH_DATA_ROOT stands in for it.")
    download: bool = Field(False, description="Fetch the data where the network allows it.")
    val_size: int | Fraction = Field(0.1, description="Validation part cut from the training set under "
                                     "`protocol: holdout`: images (integer) or a fraction.")
    split_seed: int = Field(0, ge=0, lt=2**63, description="Seed of the split; all runs of a comparison share it.")
    split_file: str | None = Field(None, description="A stored split (split-*.npz) to use instead of cutting one.")
    train_subset: int | None = Field(None, ge=1, description="Use only so many training images (after the split).")
    val_subset: int | None = Field(None, ge=1, description="Use only so many validation images.")
    test_subset: int | None = Field(None, ge=1, description="Use only so many test images.")
    mean: tuple[float, float, float] | None = Field(None, description="Normalisation mean per channel, pixels in "
                                                    "[0, 1]; default: the data set's own.")
    std: tuple[float, float, float] | None = Field(None, description="Normalisation std per channel.")
    num_classes: int | None = Field(None, ge=2, description="Classes that image_folder must have; default: as found.")

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return _floats(value)

    @field_validator("mean")
    @classmethod
    def _mean_of_pixels(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not 0 <= min(value) <= max(value) <= 1:
            raise ValueError(f"every mean must lie in [0, 1], as the pixels do{_divided(value)}")
        return value

    @field_validator("std")
    @classmethod
    def _std_of_pixels(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and min(value) <= 0:
            raise ValueError("every std must be greater than 0")
        if value is not None and not 0.001 <= min(value) <= max(value) <= 1:
            raise ValueError(f"every std must lie in [0.001, 1], for pixels in [0, 1]{_divided(value)}")
        return value

    @field_validator("val_size")
    @classmethod
    def _at_least_one(cls, value: int | float) -> int | float:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1 image, or a fraction between 0 and 1")
        return value


class Recipe(Strict):
    """How a stage is trained. All lengths are in epochs unless `iterations` sets the length of the stage."""

    # length and batch
    epochs: int | None = Field(10, ge=1, le=1_000_000, description="Passes over the training part.")
    iterations: int | None = Field(None, ge=1, le=10**9, description="Optimiser steps; replaces `epochs`, and "
                                   "milestones, warmup and step size are then in steps too.")
    batch_size: BatchSize = Field(128, description="Images per optimiser step, over all processes together.")
    reference_batch_size: BatchSize | None = Field(
        None, description="lr and momentum are given for this batch size; for another batch_size they are "
        "scaled: momentum^(B/B0), and lr times (B/B0) (1 - scaled momentum) / (1 - momentum). sgd only; null: taken "
        "as given.")
    drop_last: bool = Field(False, description="Leave out the last, smaller batch of an epoch.")
    # optimiser
    opt: Literal["sgd", "adamw", "adam", "rmsprop"] = Field(
        "sgd", description="Optimiser. adam adds its weight decay to the gradient; rmsprop smooths with alpha 0.9, as "
        "in torchvision's recipes (which set eps: 0.0316).")
    lr: float = Field(0.1, gt=0, description="Learning rate after warmup.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd and rmsprop.")
    nesterov: bool = Field(False, description="Nesterov momentum (sgd).")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Betas of adamw and adam.")
    eps: float = Field(1e-8, gt=0, le=1, description="Epsilon of adamw, adam and rmsprop.")
    weight_decay: WeightDecay = Field(1e-4, description="Weight decay of everything without a rule of its own.")
    norm_weight_decay: WeightDecay | None = Field(None, description="Weight decay of normalisation parameters.")
    bias_weight_decay: WeightDecay | None = Field(None, description="Weight decay of parameters called bias.")
    weight_decay_overrides: dict[str, WeightDecay] = Field(
        default_factory=dict,
        description="Weight decay by fnmatch pattern over parameter names; wins over the other rules "
        "('*relative_position_bias_table': 0.0).",
    )
    clip_grad_norm: float | None = Field(None, gt=0, description="Largest norm of the whole gradient.")
    # schedule
    lr_scheduler: Literal["constant", "multistep", "step", "cosine", "exponential"] = Field(
        "cosine", description="Shape of the learning rate after warmup.")
    lr_milestones: tuple[int, ...] = Field((), description="multistep: where the rate is multiplied by lr_gamma.")
    lr_step_size: int = Field(30, ge=1, description="step: the distance between drops.")
    lr_gamma: float = Field(0.1, gt=0, description="Factor of multistep, step and exponential.")
    lr_min: float = Field(0.0, ge=0, description="cosine: the rate at the end.")
    lr_warmup_epochs: int = Field(0, ge=0, description="Length of the warmup.")
    lr_warmup_method: Literal["linear", "constant"] = Field("linear", description="Shape of the warmup.")
    lr_warmup_decay: float = Field(0.01, gt=0, le=1, description="The warmup starts at this fraction of lr.")
    lr_per_step: bool = Field(False, description="Change the rate at every step instead of once an epoch "
                              "(cosine, linear warmup); always so under `iterations`.")
    # loss and mixing
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing of cross-entropies on labels.")
    mixup_alpha: float = Field(0.0, ge=0, le=1000, description="Mixup; with cutmix too, one of the two per batch.")
    cutmix_alpha: float = Field(0.0, ge=0, le=1000, description="CutMix.")
    # augmentation
    train_crop: Literal["auto", "pad", "resized", "center", "none"] = Field(
        "auto", description="pad: zero padding and a random crop; resized: RandomResizedCrop; center: as in "
        "evaluation; auto: pad for small images, resized for large ones.")
    crop_padding: int = Field(4, ge=0, le=1024, description="Padding of train_crop: pad, in pixels a side.")
    hflip_prob: Probability | None = Field(None, description="Horizontal flip; default: the data set's own.")
    auto_augment: Literal["ra", "ta_wide", "augmix", "imagenet", "cifar10", "svhn"] | None = Field(
        None, description="RandAugment, TrivialAugmentWide, AugMix or an AutoAugment policy.")
    ra_magnitude: int = Field(9, ge=0, le=30, description="Magnitude of RandAugment.")
    augmix_severity: int = Field(3, ge=1, le=10, description="Severity of AugMix.")
    random_erase: Probability = Field(0.0, description="Random erasing, after normalisation.")
    ra_reps: int = Field(1, ge=1, le=1024, description="Repeated augmentation: times each image stands in a row; the "
                         "epoch keeps its number of batches.")
    # image sizes
    train_crop_size: Side | None = Field(None, description="Side of training images; default: the data set's.")
    val_resize_size: Side | None = Field(None, description="Shorter side before the evaluation crop.")
    val_crop_size: Side | None = Field(None, description="Side of evaluation images.")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field("bilinear", description="Of every resize.")
    # averaging
    model_ema: bool = Field(False, description="Evaluate an exponential moving average of the weights.")
    model_ema_steps: int = Field(32, ge=1, description="Steps between updates of the average.")
    model_ema_decay: float = Field(0.99998, gt=0, lt=1, description="Decay as in torchvision's references: "
                                   "adjusted by batch size, steps and epochs.")
    # execution: does not belong to a run's identity unless it changes the arithmetic
    amp: Literal["off", "bf16", "fp16"] = Field("off", description="Mixed precision of training, and of "
                                         "evaluation unless `evaluate.amp` says otherwise.")
    channels_last: bool = Field(False, description="Memory format of images and weights.")
    compile: bool = Field(False, description="torch.compile of the training step.")
    sync_batchnorm: bool = Field(False, description="Batch statistics over all processes instead of each its own.")
    loader: Literal["auto", "resident", "workers"] = Field(
        "auto", description="resident: whole set as uint8 on the device; workers: worker processes; auto: "
        "resident for small images, unless an augmentation needs workers.")
    workers: int = Field(4, ge=0, le=1024, description="Worker processes of the loader, per process; 0: none.")
    checkpoint_every: int | None = Field(None, ge=1, description="Steps between checkpoints; default: every epoch.")

    @model_validator(mode="before")
    @classmethod
    def _length(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("iterations") is not None and "epochs" not in values:
            values = {**values, "epochs": None}
        return values

    @field_validator("amp", mode="before")
    @classmethod
    def _amp(cls, value: Any) -> Any:
        return _precision(value)

    @field_validator("betas", mode="before")
    @classmethod
    def _betas(cls, value: Any) -> Any:
        return _floats(value)

    @field_validator("lr_milestones", mode="before")
    @classmethod
    def _milestones(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("betas")
    @classmethod
    def _betas_in_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError("each beta must lie in [0, 1)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give `epochs` or `iterations`, one of them (set the other to null)")
        length = self.epochs or self.iterations or 0
        if self.lr_warmup_epochs >= length and self.lr_warmup_epochs > 0:
            problem = f"lr_warmup_epochs ({self.lr_warmup_epochs}) must be shorter than the training ({length})"
            raise AtKey(problem, "lr_warmup_epochs")
        if self.lr_scheduler == "multistep" and not self.lr_milestones:
            raise AtKey("lr_scheduler: multistep needs lr_milestones", "lr_scheduler")
        if self.lr_scheduler != "multistep" and self.lr_milestones:
            raise AtKey(f"lr_milestones do nothing under lr_scheduler: {self.lr_scheduler}", "lr_milestones")
        if any(m < 0 for m in self.lr_milestones) or list(self.lr_milestones) != sorted(set(self.lr_milestones)):
            raise AtKey("lr_milestones must grow", "lr_milestones")
        if self.nesterov and (self.opt != "sgd" or self.momentum == 0):
            raise AtKey("nesterov needs opt: sgd and a momentum greater than 0", "nesterov")
        if self.reference_batch_size is not None and self.opt != "sgd":
            problem = "reference_batch_size is a rule for opt: sgd; set it to null, and lr for the batch size"
            raise AtKey(problem, "reference_batch_size")
        if self.lr_min > self.lr:
            raise AtKey(f"lr_min ({self.lr_min}) is greater than lr ({self.lr})", "lr_min")
        if (self.mixup_alpha or self.cutmix_alpha) and self.batch_size < 2:
            raise AtKey("mixup and cutmix need a batch_size of at least 2", "batch_size")
        if self.loader == "resident" and self.auto_augment:
            raise AtKey("auto_augment needs loader: workers (or auto)", "auto_augment")
        return self


#: Fields of the recipe that cannot change a result and so stay out of a run's identity. What
#: ``reference_batch_size`` does is in the resolved recipe's lr and momentum.
EXECUTION_ONLY = frozenset({"workers", "checkpoint_every", "reference_batch_size"})


class Evaluate(Strict):
    """What is measured after training."""

    batch_size: int = Field(256, ge=1, description="Images per evaluation batch (does not change results).")
    amp: Literal["recipe", "off", "bf16", "fp16"] = Field(
        "recipe", description="Precision of evaluation; recipe: that of the last stage's training (`recipe.amp`).")
    policies: tuple[str, ...] = Field((), description="Policies besides each operating point by itself; "
                                      "default: those that fit the method.")
    validate_every: int | None = Field(None, ge=1, description="Epochs between looks at the validation part while "
                                       "training, for the curves; nothing is chosen by them.")
    confidence_level: Fraction = Field(0.95, description="Level of every interval.")
    risk: tuple[Fraction, ...] = Field((0.01, 0.02, 0.05), min_length=1, description="Largest risks that policies with "
                                       "a promise (ltt, crc) are to keep, shares of the images.")
    delta: Fraction = Field(0.1, description="How probable it may be that a promise of ltt is broken.")
    keep_logits: bool = Field(True, description="Keep the logits of every image beside the decision record (float16; "
                              "of more than 100 classes the 20 largest), for policies that are fitted on them.")

    @field_validator("amp", mode="before")
    @classmethod
    def _amp(cls, value: Any) -> Any:
        return _precision(value)

    @field_validator("policies", "risk", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class Run(Strict):
    """One entry of `runs:`."""

    name: RunName = Field(description="Name in tables and plots; unique in the file.")
    method: str = Field(description="A method of `bench list methods`.")
    options: dict[str, Any] = Field(default_factory=dict, description="The method's own options.")
    label: str | None = Field(None, description="How plots call the run; default: its name.")
    recipe: dict[str, Any] = Field(default_factory=dict, description="What this run changes in the shared recipe.")
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict,
                                              description="What this run changes in the recipe of one stage.")
    data: dict[str, Any] = Field(default_factory=dict, description="Normalisation of this run (mean, std), for "
                                 "imported weights; the data set and its split are shared.")
    seeds: tuple[Seed, ...] | None = Field(None, min_length=1, description="Seeds; default: the comparison's.")
    weights: str | None = Field(None, description="Start from these weights (our checkpoint, a state_dict file or a "
                                "training checkpoint); FILE#KEY takes one of several networks in it.")
    arch: str | None = Field(None, description="Published architecture that `weights` belong to, where the file "
                             "holds published names; see `bench import`.")
    evaluate_only: bool = Field(False, description="Measure `weights` without training.")
    skip: str | None = Field(None, description="Leave this run out for this reason; tables show it as skipped.")
    group: str | None = Field(None, min_length=1, description="Runs of one group are one contender and one curve: a "
                              "family of depths, a sweep over a weight. Default: each run by itself.")
    factors: dict[str, str] = Field(default_factory=dict, description="Levels of an ablation's axes that this run has; "
                                    "`bench ablate` fills them in.")
    base: str | None = Field(None, description="The run that this one varies; `bench ablate` fills it in.")
    published: tuple[Published, ...] = Field((), description="Published numbers to stand beside this run's own.")

    @field_validator("seeds", "published", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return value if value is None else _distinct(value)

    @model_validator(mode="after")
    def _consistent(self) -> Run:
        if self.evaluate_only and not self.weights:
            raise AtKey("evaluate_only needs weights: FILE", "evaluate_only")
        if self.arch and not self.weights:
            raise AtKey("arch names what `weights` belong to; give weights: FILE too", "arch")
        unknown = set(self.data) - {"mean", "std"}
        if unknown:
            problem = f"a run may change mean and std of the data, not {', '.join(sorted(unknown))}"
            raise AtKey(problem, "data", min(unknown))
        return self


class Comparison(Strict):
    """A whole file: data, shared recipe, runs."""

    name: RunName = Field(description="Name of the comparison; its results go to results/<name>.")
    title: str | None = Field(None, description="Heading of tables and plots.")
    data: Data = Field(description="Data set and split.")
    recipe: Recipe = Field(default_factory=Recipe, description="Recipe that all runs share.")
    protocol: Literal["holdout", "published"] = Field(
        "holdout", description="holdout: a validation part is cut from the training set and every choice is made "
        "on it; published: the whole training set is trained on, and only what needs no choice is reported.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="What is measured.")
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="Seeds: each run is trained once per seed.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to run; auto takes CUDA where it is.")
    threads: int | None = Field(None, ge=1, description="CPU threads per run; default: torch's own.")
    deterministic: bool = Field(False, description="Only deterministic kernels on CUDA; slower.")
    out: str | None = Field(None, description="Folder of the results; default: results/<name>.")
    timeout_minutes: float | None = Field(None, gt=0, description="A run that takes longer is stopped: status timeout.")
    trackers: tuple[str, ...] = Field((), description="Programs that are told how training goes and what came of it: "
                                      "trackers of `bench list trackers`. They change no result.")
    reference: str | None = Field(None, description="The run whose cost is 1 where a budget is a share.")
    budgets: tuple[float | str, ...] = Field((), description="Limits on the mean cost of an image: 0.5 (of the "
                                             "reference run), '30M' or '1.2G' (MACs), '2.5ms' (where measured).")
    auc: tuple[float | str, float | str] | None = Field(
        None, description="Range of budgets of the area under the curve, shares of the reference run or MACs; "
        "default: [0.25, 1.0] of the reference run.")
    verdicts: Verdicts = Field(default_factory=Verdicts, description="Which comparisons are tested, in which order.")
    runs: tuple[Run, ...] = Field(min_length=1, description="What is compared.")
    ablation: tuple[Ablation, ...] = Field((), description="Axes along which runs are varied; a section, or several.")

    @field_validator("ablation", mode="before")
    @classmethod
    def _sections(cls, value: Any) -> Any:
        return as_sections(value)

    @field_validator("seeds", "runs", "budgets", "auc", "trackers", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("trackers")
    @classmethod
    def _trackers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("duplicate tracker")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(value)

    @model_validator(mode="after")
    def _unique_names(self) -> Comparison:
        seen: set[str] = set()
        for index, run in enumerate(self.runs):
            if run.name.lower() in seen:
                problem = f"two runs are called '{run.name}' (names differ in more than case)"
                raise AtKey(problem, "runs", index, "name")
            seen.add(run.name.lower())
        return self

    @field_validator("budgets")
    @classmethod
    def _budgets(cls, value: tuple[float | str, ...]) -> tuple[float | str, ...]:
        parsed = [parse_budget(entry) for entry in value]
        if len(set(parsed)) != len(parsed):
            raise ValueError("a budget stands twice")
        return value

    @field_validator("auc")
    @classmethod
    def _auc(cls, value: tuple[float | str, float | str] | None) -> tuple[float | str, float | str] | None:
        if value is not None:
            check_auc_range(value)
        return value

    @model_validator(mode="after")
    def _verdicts_exist(self) -> Comparison:
        asked, names = self.verdicts, [run.name for run in self.runs]
        groups = [run.group for run in self.runs if run.group]
        if asked.against == REFERENCE and self.reference is None:
            raise AtKey("verdicts.against: reference needs a `reference:` run", "verdicts", "against")
        known = [REFERENCE, ALL, *names, *groups]
        if asked.against is not None and asked.against not in known:
            problem = f"verdicts.against: no run or group is called '{asked.against}'"
            raise AtKey(f"{problem}{did_you_mean(asked.against, known)}", "verdicts", "against")
        if asked.first != AUC and parse_budget(asked.first) not in [parse_budget(entry) for entry in self.budgets]:
            problem = f"verdicts.first: {asked.first} is not one of `budgets`; write one of them, or auc"
            raise AtKey(problem, "verdicts", "first")
        return self

    @model_validator(mode="after")
    def _reference_exists(self) -> Comparison:
        names = [run.name for run in self.runs]
        if self.reference is not None and self.reference not in names:
            problem = f"reference: no run is called '{self.reference}'{did_you_mean(self.reference, names)}"
            raise AtKey(problem, "reference")
        if self.reference is None and any(not isinstance(entry, str) for entry in self.budgets):
            raise AtKey("budgets: a share needs a `reference:` run that it is a share of", "budgets")
        if self.reference is None and any(not isinstance(entry, str) for entry in self.auc or ()):
            raise AtKey("auc: a share needs a `reference:` run that it is a share of; or write MACs ('30M')", "auc")
        return self


def _divided(values: tuple[float, ...]) -> str:
    """The hint for values that are meant for pixels in [0, 255]."""
    if not 1 < max(values) <= 255 or min(values) < 0:
        return ""
    return f"; divided by 255: [{', '.join(f'{value / 255:.4g}' for value in values)}]"


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("a seed stands twice")
    return seeds


def _precision(value: Any) -> Any:
    """YAML reads `off` and `on` as truth values."""
    return {True: "fp16", False: "off"}[value] if isinstance(value, bool) else value


def _floats(value: Any) -> Any:
    """YAML lists of numbers as tuples of floats: [0, 0.5] is meant as (0.0, 0.5)."""
    return tuple(map(_float, value)) if isinstance(value, (list, tuple)) else value


def _float(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except OverflowError:
        return float("inf")  # which is then refused as not finite
