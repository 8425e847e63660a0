"""Trains the lesion classifier with Keras in one or two phases, keeps the best epoch, exports it, proves the export."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.dataset import DatasetVersion, Split
from ml_backend import preprocessing
from ml_backend.bundle import ModelBundle, Scaling
from ml_backend.onnx_session import Graph
from ml_backend.preprocessing import Floats, Pixels
from training import augment, checkpoints, datasets, metrics, networks, sampling, served_graph
from training.checkpoints import TrainingState
from training.config import ClassifierConfig
from training.datasets import Crops
from training.errors import ConfigError, DataError
from training.frozen import Batch, FrozenBackbone, frozen_backbone
from training.networks import NetworkPlan, Start
from training.quiet import quiet
from training.runs import Run

CHECKPOINT = "classifier.weights.h5"
GRAPH = "classifier.onnx"
VALIDATION = ("balanced_accuracy", "accuracy", "top3", "auc", "loss")
"""Validation metrics of every epoch; any of them may pick the best checkpoint."""
_GOLDEN, _BATCH = 16, 64


@dataclass(frozen=True, slots=True, eq=False)
class TrainedClassifier:
    """A trained classifier: its graph, the checkpoint to start the next one from, and how it came about.

    `logits` (N, C) and `labels` (N,) are its answers on the validation crops, for calibration; `train_counts` the
    training crops of each class; `parity` the largest difference of the logits between graph and Keras model.
    """

    graph: Path
    checkpoint: Path
    shape: NetworkPlan
    start: str
    epochs: int
    seconds: float
    parity: float
    logits: Floats
    labels: datasets.Labels
    train_counts: tuple[int, ...]
    best: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedNetwork:
    """A Keras model with the weights of its best epoch, its plan, how it began, and the crops it was fitted on."""

    model: Any
    shape: NetworkPlan
    start: Start
    learn: Crops
    check: Crops
    best: float


@dataclass(frozen=True, slots=True, eq=False)
class _Phase:
    """What learns, what an epoch shows it, and what it is asked after each: crops, or the features of crops."""

    learner: Any
    batches: Callable[[int], Iterator[Batch]]
    validation: Floats


def train(
    version: DatasetVersion,
    run: Run,
    cache: Path,
    config: ClassifierConfig,
    champion: Path | None = None,
    finder: ModelBundle | None = None,
) -> TrainedClassifier:
    """The classifier trained on the crops of a version, taken up where a killed run stopped.

    `champion` is the checkpoint to start from, `finder` the bundle whose detector's boxes are shown too. Raises
    DataError where fewer than two classes have training crops or the validation split has none, ParityError where the
    export answers differently.
    """
    begun = time.monotonic()
    fitted = fit(version, run, cache, config, champion, finder)
    shape, check = fitted.shape, fitted.check
    with quiet(run, run.folder / "classifier.log"):
        golden, tolerance = check.pixels[:_GOLDEN], config.parity_tolerance
        graph, parity = served_graph.export(shape, fitted.model, run.folder / GRAPH, golden, tolerance)
    counts = np.bincount(fitted.learn.labels, minlength=len(shape.classes))
    return TrainedClassifier(
        graph=graph,
        checkpoint=run.folder / CHECKPOINT,
        shape=shape,
        start=fitted.start.words,
        epochs=_total_epochs(config, fitted.start),
        seconds=time.monotonic() - begun,
        parity=parity,
        logits=_graph_logits(graph, check.pixels, shape.scaling),
        labels=check.labels,
        train_counts=tuple(int(count) for count in counts),
        best=fitted.best,
    )


def fit(
    version: DatasetVersion,
    run: Run,
    cache: Path,
    config: ClassifierConfig,
    champion: Path | None = None,
    finder: ModelBundle | None = None,
) -> FittedNetwork:
    """The fitted network, with its checkpoint and plan in the run folder; not exported yet.

    Raises DataError where fewer than two classes have training crops or the validation split has none.
    """
    classes = version.dataset.taxonomy.classes(config.target)
    wide, padding = augment.wide_size(config)
    learn = datasets.crops(version, Split.TRAIN, config.target, size=wide, padding=padding, cache=cache)
    if config.detector_boxes and finder is not None and finder.detector is not None:
        options: dict[str, Any] = {"size": wide, "padding": padding, "cache": cache, "finder": finder}
        learn = replace(learn, found=datasets.crops(version, Split.TRAIN, config.target, **options).pixels)
    size, padding = config.image_size, config.crop_padding
    check = datasets.crops(version, Split.VAL, config.target, size=size, padding=padding, cache=cache)
    _require_crops(learn, check, classes)
    for words in untaught(learn.labels, check.labels, classes):
        run.report("classifier", 0, config.epochs, words)
    with quiet(run, run.folder / "classifier.log") as run:
        start = networks.begun_with(run.folder, config, classes, champion)
        shape = networks.plan(config, classes, start)
        model = _fit(learn, check, run, config, start, shape, cache)
        checkpoints.settle(run.folder, model, run.folder / CHECKPOINT)
        networks.write_plan(shape, run.folder / CHECKPOINT)
    return FittedNetwork(model, shape, start, learn, check, checkpoints.read_state(run.folder).best)


def untaught(learn: datasets.Labels, check: datasets.Labels, classes: tuple[str, ...]) -> tuple[str, ...]:
    """A sentence for each split that lacks crops of some class: training goes on without them."""
    lacking = {
        split: ", ".join(name for column, name in enumerate(classes) if column not in labels)
        for split, labels in (("training", learn), ("validation", check))
    }
    return tuple(f"no {split} crop of {names}: approve some" for split, names in lacking.items() if names)


def _require_crops(learn: Crops, check: Crops, classes: tuple[str, ...]) -> None:
    present = sorted({classes[label] for label in learn.labels.tolist()})
    if len(present) < 2:
        raise DataError("training crops", present, f"two or more of {', '.join(classes)}", "Approve more images.")
    if not len(check.labels):
        raise DataError("validation crops", 0, "one or more", "Approve more images, or change the split shares.")


def _fit(
    learn: Crops, check: Crops, run: Run, config: ClassifierConfig, start: Start, shape: NetworkPlan, cache: Path
) -> Any:
    keras = networks.keras_library()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        model, backbone = networks.build(shape, start.backbone, config.dropout)
    finally:
        keras.config.set_dtype_policy("float32")
    state = checkpoints.read_state(run.folder)
    if state.epoch:
        checkpoints.load_weights(run.folder, state, model)
    elif start.checkpoint is not None:
        model.load_weights(start.checkpoint)
    elif not start.pretrained:
        run.report("classifier", 0, config.epochs, f"training from {start.words}")
    frozen = _frozen_epochs(config, start)
    for first, last, rate in (
        (0, frozen, config.learning_rate),
        (frozen, _total_epochs(config, start), _rate(config, start)),
    ):
        if state.epoch < last:
            top = config.unfrozen_layers if start.pretrained else 0  # what nobody taught must not be frozen
            _freeze(backbone, top, whole=last == frozen)
            steps = -(-sampling.epoch_size(learn, config) // config.batch)
            _compile(keras, model, config, rate, steps * (last - first))
            if state.epoch == first:
                state.waited = 0
            else:
                checkpoints.load_moments(run.folder, state, model)
            phase = _whole_phase(model, learn, check, config, shape)
            if last == frozen:
                phase = _head_phase(phase, frozen_backbone(keras, model, learn, config, shape, cache))
            _epochs(model, phase, check.labels, run, config, state, last, _total_epochs(config, start))
    return model


def _whole_phase(model: Any, learn: Crops, check: Crops, config: ClassifierConfig, shape: NetworkPlan) -> _Phase:
    weights = _class_weights(learn.labels, len(shape.classes), config)

    def batches(epoch: int) -> Iterator[Batch]:
        return _batches(learn, weights, config, shape, np.random.default_rng((config.seed, epoch)))

    return _Phase(model, batches, preprocessing.scale_crops(check.pixels, shape.scaling))


def _head_phase(whole: _Phase, backbone: FrozenBackbone) -> _Phase:
    """The same phase with features for crops: the head learns under the network's own optimizer."""
    network = whole.learner
    backbone.head.compile(network.optimizer, loss=network.loss, jit_compile=False)
    return _Phase(
        backbone.head,
        lambda epoch: backbone.batches(epoch, whole.batches(epoch)),
        backbone.features(whole.validation),
    )


def _frozen_epochs(config: ClassifierConfig, start: Start) -> int:
    return config.frozen_epochs if start.backbone is not None else 0


def _total_epochs(config: ClassifierConfig, start: Start) -> int:
    return _frozen_epochs(config, start) + config.epochs


def _rate(config: ClassifierConfig, start: Start) -> float:
    return config.fine_tune_learning_rate if start.pretrained else config.learning_rate


def _freeze(backbone: Any, unfrozen: int, whole: bool) -> None:
    """Freezes the whole backbone, or all but its top layers; 0 unfrozen layers are all of them."""
    first = len(backbone.layers) - (unfrozen or len(backbone.layers))
    for number, layer in enumerate(backbone.layers):
        layer.trainable = not whole and number >= first


def _compile(keras: Any, model: Any, config: ClassifierConfig, rate: float, steps: int) -> None:
    from training.fused_adamw import FusedAdamW

    optimizer = FusedAdamW(
        _schedule(keras, config, rate, max(steps, 1)),
        weight_decay=config.weight_decay,
        clipnorm=5.0,
        use_ema=config.ema > 0,
        ema_momentum=config.ema or 0.99,
        ema_overwrite_frequency=None,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(model.trainable_variables)
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True)

    def loss(wanted: Any, logits: Any) -> Any:
        targets, priors = keras.ops.split(wanted, 2, axis=1)
        return entropy(targets, logits + priors)

    model.compile(optimizer, loss=loss, jit_compile=False)


def _schedule(keras: Any, config: ClassifierConfig, rate: float, steps: int) -> Any:
    warmup = min(max(steps // 20, 1), 200)
    if config.schedule in ("constant", "plateau"):
        return rate
    if config.schedule != "cosine":
        known = "cosine, plateau or constant"
        raise ConfigError("classifier.schedule", config.schedule, known, "Correct the value.")
    return keras.optimizers.schedules.CosineDecay(
        rate / 20, max(steps - warmup, 1), alpha=0.02, warmup_target=rate, warmup_steps=warmup
    )


def _epochs(
    model: Any,
    phase: _Phase,
    labels: datasets.Labels,
    run: Run,
    config: ClassifierConfig,
    state: TrainingState,
    last: int,
    total: int,
) -> None:
    for epoch in range(state.epoch, last):
        loss = float(np.mean([_step(phase.learner, *batch) for batch in phase.batches(epoch)]))
        with _averaged(model, config):
            answer = phase.learner.predict(phase.validation, batch_size=_BATCH, verbose=0)
            logits = np.asarray(answer, dtype=np.float32)
            score = validation_score(logits, labels, config.select_by)
            state.waited = 0 if score > state.best else state.waited + 1
            if score >= state.best or not checkpoints.has_best(run.folder):
                state.best, state.best_epoch = score, epoch
                checkpoints.keep_best(run.folder, model)
        rate = _lowered_rate(model.optimizer, config, state)
        state.epoch = last if epoch - state.best_epoch >= config.patience else epoch + 1
        checkpoints.save(run.folder, state, model)
        scores = {name: validation_score(logits, labels, name) for name in VALIDATION}
        run.measure("classifier", epoch + 1, {"loss": loss, "learning_rate": rate, **scores})
        run.report("classifier", epoch + 1, total, f"loss {loss:.3f}, validation {config.select_by} {score:.3f}")
        if state.epoch == last:
            break


def _lowered_rate(optimizer: Any, config: ClassifierConfig, state: TrainingState) -> float:
    """The learning rate of the next step; with the plateau schedule lowered once the score has not risen for long."""
    rate = float(optimizer.learning_rate)
    if config.schedule != "plateau" or state.waited < config.plateau_patience:
        return rate
    state.waited, rate = 0, max(rate * config.plateau_factor, config.least_learning_rate)
    optimizer.learning_rate.assign(rate)
    return rate


@contextmanager
def _averaged(model: Any, config: ClassifierConfig) -> Iterator[None]:
    """The model under its averaged weights inside the block, where the configuration keeps an average."""
    if not config.ema:
        yield
        return
    raw = [weight.numpy() for weight in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for weight, value in zip(model.trainable_variables, raw, strict=True):
            weight.assign(value)


def _step(model: Any, batch: Floats, targets: Floats, weights: Floats) -> float:
    found = model.train_on_batch(batch, targets, sample_weight=weights)
    return float(found[0] if isinstance(found, list | tuple) else found)


def _batches(
    learn: Crops, class_weights: Floats, config: ClassifierConfig, shape: NetworkPlan, generator: np.random.Generator
) -> Iterator[Batch]:
    """Crops, their targets with what is added to the logits behind them (N, 2 C), and weights."""
    order = sampling.evened(sampling.drawn(learn, config, generator), config.batch)
    priors = sampling.log_priors(learn, len(shape.classes), config)
    for part in order:
        views = augment.augmented(_pixels(learn, part, config, generator), config, generator)
        batch = preprocessing.scale_crops(views, shape.scaling)
        labels, shares = learn.labels[part], learn.shares[part]
        targets = shares if config.disagreement == "soft" else np.eye(len(shape.classes), dtype=np.float32)[labels]
        agreed = shares[np.arange(len(part)), labels] if config.disagreement == "weight" else 1.0
        targets = sampling.smoothed(targets, priors[part], config.label_smoothing)
        wanted = np.concatenate([targets, priors[part]], axis=1)
        yield (*augment.mixed(batch, wanted, config.mixup, generator), class_weights[labels] * agreed)


def _pixels(learn: Crops, part: datasets.Labels, config: ClassifierConfig, generator: np.random.Generator) -> Pixels:
    """The crops of a batch, a share of them as the detector cuts them."""
    if learn.found is None:
        return learn.pixels[part]
    chosen = generator.random(len(part)) < config.detector_boxes
    return np.where(chosen[:, None, None, None], learn.found[part], learn.pixels[part])


def _class_weights(labels: datasets.Labels, classes: int, config: ClassifierConfig) -> Floats:
    counts = np.bincount(labels, minlength=classes).astype(np.float32)
    present = counts > 0
    powers = {"balanced": 1.0, "square-root": 0.5, "none": 0.0, sampling.LOGIT_ADJUSTED: 0.0, sampling.BY_SOURCE: 0.0}
    if config.class_weights not in powers:
        raise ConfigError("classifier.class_weights", config.class_weights, ", ".join(powers), "Correct the value.")
    weights = np.where(present, np.maximum(counts, 1) ** -powers[config.class_weights], 0)
    return np.asarray(weights * counts.sum() / (weights * counts).sum(), dtype=np.float32)


def validation_score(logits: Floats, labels: datasets.Labels, name: str) -> float:
    """A validation metric out of VALIDATION, more being better: the loss is negated."""
    ones = np.ones(len(labels))
    shares = preprocessing.softmax(logits)
    matrix = metrics.confusion(labels, shares.argmax(axis=1), logits.shape[1], ones)
    if name == "balanced_accuracy":
        return metrics.balanced_accuracy(matrix)
    if name == "accuracy":
        return metrics.accuracy(matrix)
    if name == "top3":
        return metrics.top_k(np.asarray(shares, dtype=np.float64), labels, 3, ones)
    if name == "auc":
        areas = [metrics.auc(labels == column, shares[:, column], ones) for column in range(logits.shape[1])]
        return float(np.nanmean(areas)) if not np.isnan(areas).all() else 0.0
    if name == "loss":
        return float(np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-9)).mean())
    raise ConfigError("classifier.select_by", name, ", ".join(VALIDATION), "Correct the value.")


def _graph_logits(graph: Path, crops: Pixels, scaling: Scaling) -> Floats:
    session = Graph(graph)
    parts = [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
    return np.concatenate([session.run(preprocessing.scale_crops(part, scaling))[0] for part in parts])
